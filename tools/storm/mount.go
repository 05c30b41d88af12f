package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// mountable tells why a file system can't be mounted here.
func mountable(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "storm-mount-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	unmount, err := mountMemory(ctx, dir, 1<<20)
	if err == nil {
		err = unmount()
	}
	return errors.Join(err, os.Remove(dir))
}

// mountMemory mounts a file system of so many bytes on dir.
func mountMemory(ctx context.Context, dir string, size int) (unmount func() error, err error) {
	if err := tool(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0700", size), "tmpfs", dir); err != nil {
		return nil, err
	}
	return func() error { return tool(context.WithoutCancel(ctx), "umount", dir) }, nil
}

// remount makes a mounted file system "ro" or "rw".
func remount(ctx context.Context, dir, mode string) error {
	return tool(ctx, "mount", "-o", "remount,"+mode, dir)
}

func tool(ctx context.Context, name string, args ...string) error {
	if output, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, output)
	}
	return nil
}

// ballast takes the room of a file system but for some bytes, and is the file to remove.
func ballast(dir string, leave int) (path string, err error) {
	path = filepath.Join(dir, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("filling the disk: %w", err)
	}
	written, err := io.Copy(f, endless{})
	if !errors.Is(err, syscall.ENOSPC) {
		return "", errors.Join(fmt.Errorf("filling the disk ended with %w", err), f.Close())
	}
	return path, errors.Join(f.Truncate(max(0, written-int64(leave))), f.Close())
}

// endless is a reader of zeros.
type endless struct{}

// Read fills b with zeros.
func (endless) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// within waits until something is so, and reports false if that takes too long.
func within(ctx context.Context, most time.Duration, so func() bool) bool {
	deadline := time.Now().Add(most)
	for !so() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
		pause(ctx, 5*time.Millisecond)
	}
	return true
}
