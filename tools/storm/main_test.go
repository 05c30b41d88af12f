package main

import (
	"context"
	"os"
	"testing"
)

// What nobody reads ends, and cleans up behind itself.
func TestABrokenPipeEndsTheRun(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := heard{writer, stop}
	if _, err := out.Write([]byte("seed 1\n")); err != nil || ctx.Err() != nil {
		t.Fatalf("while somebody reads: %v, %v", err, ctx.Err())
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write([]byte("kill: held\n")); err == nil || ctx.Err() == nil {
		t.Errorf("when nobody reads: %v, %v", err, ctx.Err())
	}
}
