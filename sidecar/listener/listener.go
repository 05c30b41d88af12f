// Package listener is how Postern speaks HTTP, on each of its listeners alike: where
// it may listen, how long a peer may take, how a body is read, how an error looks.
//
// Its promise: no peer holds a connection or memory for longer than the limits here
// say, a panic ends one request and not the process, and every answer that isn't a
// success is {"error":{"code":"…","message":"…"}}.
package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxSocketPath is what sockaddr_un holds on Linux, less the terminating zero byte.
const maxSocketPath = 107

// Address is where a listener listens: a TCP host and port or a Unix socket.
type Address struct {
	Network string // "tcp" or "unix"
	Address string // "127.0.0.1:8181", or the path of the socket
}

// ParseAddress reads "host:port" or "unix:///absolute/path".
func ParseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return Address{}, fmt.Errorf("want unix:///absolute/path, got %q", text)
		}
		return UnixAddress(path)
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return Address{}, fmt.Errorf("want host:port or unix:///path.sock, got %q", text)
	}
	return Address{Network: "tcp", Address: text}, nil
}

// UnixAddress returns the address of the socket at path, or an error if the kernel
// couldn't hold so long a path.
func UnixAddress(path string) (Address, error) {
	if longest := maxSocketPath - len(unpublished); len(path) > longest {
		return Address{}, fmt.Errorf("want a socket path of at most %d bytes, got %d: %s", longest, len(path), path)
	}
	return Address{Network: "unix", Address: path}, nil
}

// String returns the address in the form that [ParseAddress] reads.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix://" + a.Address
	}
	return a.Address
}

// Local reports whether only this machine (for TCP: this network namespace, which the
// containers of a pod share) can reach the address.
func (a Address) Local() bool {
	if a.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.Address)
	return err == nil && IsLoopbackHost(host)
}

// IsLoopbackHost reports whether host, without port, is "localhost", a name below it
// (RFC 6761, section 6.3) or a loopback IP address.
func IsLoopbackHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Listen opens the address. A Unix socket gets mode before anybody can connect to it,
// and replaces a stale socket, but never one that somebody listens on and never
// another kind of file.
func (a Address) Listen(mode fs.FileMode) (net.Listener, error) {
	if a.Network != "unix" {
		l, err := net.Listen("tcp", a.Address)
		if err != nil {
			return nil, fmt.Errorf("listening on %s: %w", a, err)
		}
		return l, nil
	}
	l, err := listenUnix(a.Address, mode)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", a, err)
	}
	return l, nil
}

// unpublished marks a socket that has no right mode yet. It is bound under this name,
// given its mode, and only then renamed: between bind and chmod nobody finds it.
const unpublished = ".new"

func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if err := refuseUnlessStale(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path + unpublished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + unpublished, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(path+unpublished, mode), os.Rename(path+unpublished, path)); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path+unpublished))
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &unixListener{Listener: l, path: path, socket: info}, nil
}

func refuseUnlessStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and isn't a socket; it was left alone", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("another process listens on %s", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("finding out whether somebody listens on %s: %w", path, err)
	}
	return nil
}

// unixListener removes its socket's published name when it closes.
type unixListener struct {
	net.Listener
	path   string
	socket fs.FileInfo
}

// Addr returns the published path, not the one that the socket was bound to.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close stops listening and removes the socket, unless another one stands there by now. It
// removes first, so that it can't take the socket of a successor.
func (l *unixListener) Close() error {
	found, err := os.Lstat(l.path)
	if err == nil && os.SameFile(found, l.socket) {
		err = os.Remove(l.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it was closed before, or somebody tidied up
	}
	return errors.Join(err, l.Listener.Close())
}
