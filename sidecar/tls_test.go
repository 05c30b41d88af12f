package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The receiver speaks TLS with the certificate that is in the files now, and goes on with
// the last good one while they can't be used.
func TestCertificateIsFollowed(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "first")
	c := sidecarStarter(t, "--webhook-tls-cert="+filepath.Join(dir, "cert"), "--webhook-tls-key="+filepath.Join(dir, "key"))()
	if got := servedName(t, c); got != "first" {
		t.Fatalf("got %s", got)
	}
	writeCertificate(t, dir, "second")
	deadline := time.After(20 * time.Second)
	for servedName(t, c) != "second" {
		select {
		case <-deadline:
			t.Fatal("the new certificate isn't served")
		case <-time.After(followEvery / 10):
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cert"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-time.After(followEvery * 3 / 2)
	if got := servedName(t, c); got != "second" {
		t.Errorf("got %s", got)
	}
}

func writeCertificate(t *testing.T, dir, name string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	for file, block := range map[string]*pem.Block{
		"cert": {Type: "CERTIFICATE", Bytes: certificate},
		"key":  {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// servedName returns the common name of the certificate that a new connection meets.
func servedName(t *testing.T, c *child) string {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // it signed itself
	conn, err := dialer.DialContext(context.Background(), "tcp", c.addr("webhook"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
}
