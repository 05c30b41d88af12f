package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-authz/postern/bundle"
	"github.com/postern-authz/postern/policies"
)

// A directory, a single file and a bundle file hold the same policy; two of them are joined.
func TestPoliciesToEvaluate(t *testing.T) {
	dir := t.TempDir()
	rego := "package authz\n\ndecision := true\n"
	directory := filepath.Dir(writeFile(t, []byte(rego), dir, "tree", "authz.rego"))
	writeFile(t, []byte("package authz\n\nbroken"), dir, "tree", "authz_test.rego")
	archive := writeFile(t, packed(t, "authz.rego", rego), dir, "authz.tar.gz")
	other := writeFile(t, []byte("package other\n\nx := 1\n"), dir, "other.rego")
	for _, paths := range [][]string{{directory}, {filepath.Join(directory, "authz.rego")}, {archive}, {archive, other}, {}} {
		loaded, err := loadPolicies(t.Context(), paths)
		if err != nil {
			t.Errorf("%v: %v", paths, err)
			continue
		}
		if policy, err := loaded.Compile(bundle.Options{Schemas: policies.Schemas(), Decision: "authz/decision"}); err != nil || policy.Decision == nil {
			t.Errorf("%v: %v", paths, err)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:                       "want " + pipe + " to be",
		filepath.Join(dir, "none"): "no such file",
		writeFile(t, []byte("not a bundle"), dir, "notes.txt"):             "notes.txt",
		writeFile(t, []byte("package a\n\nb := {"), dir, "b", "half.rego"): "half.rego:",
	} {
		if _, err := loadPolicies(t.Context(), []string{path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := loadPolicies(t.Context(), []string{archive, directory}); err == nil {
		t.Error("two bundles claim the same root")
	}
}

// packed is a bundle file with one file in it.
func packed(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
