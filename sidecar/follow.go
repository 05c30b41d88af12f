package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// followEvery is how often followed files are looked at. They are small, and reading
	// them finds every way of replacing one, the symlink swap of a Kubernetes Secret included.
	followEvery         = time.Second
	largestFollowedFile = 1 << 20
)

// followed is a value that comes from files and is read anew when they change. A change
// that can't be used leaves the value as it was.
type followed[T any] struct {
	setting string // for errors
	files   []string
	parse   func(contents [][]byte) (T, error)
	value   atomic.Pointer[T]

	mu   sync.Mutex // held while reading, so that a reload sees the one before
	last [][]byte
}

// newFollowed reads the files for the first time. An error stops the start.
func newFollowed[T any](setting string, files []string, parse func([][]byte) (T, error)) (*followed[T], error) {
	f := &followed[T]{setting: setting, files: files, parse: parse}
	_, err := f.reload()
	return f, err
}

// get returns the newest usable value.
func (f *followed[T]) get() T { return *f.value.Load() }

// reload reports whether the value changed.
func (f *followed[T]) reload() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	contents := make([][]byte, len(f.files))
	for i, file := range f.files {
		content, err := readSmallFile(file, largestFollowedFile)
		if err != nil {
			return false, fmt.Errorf("%s: %w", f.setting, err)
		}
		contents[i] = content
	}
	if f.last != nil && equalContents(f.last, contents) {
		return false, nil
	}
	value, err := f.parse(contents)
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.setting, err)
	}
	f.value.Store(&value)
	f.last = contents
	return true, nil
}

func (f *followed[T]) name() string { return f.setting }

func equalContents(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// reloader is a followed value of any type.
type reloader interface {
	name() string
	reload() (changed bool, err error)
}

// follow looks after values until ctx ends. It logs each change, and a failure once.
func follow(ctx context.Context, tick <-chan time.Time, values []reloader, logger *slog.Logger) {
	failing := make(map[string]string)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		for _, value := range values {
			changed, err := value.reload()
			switch {
			case err != nil && failing[value.name()] != err.Error():
				logger.Error("followed file not usable, the previous content stays", "setting", value.name(), "error", err)
				failing[value.name()] = err.Error()
			case err == nil && changed:
				logger.Info("followed file changed", "setting", value.name())
				fallthrough
			case err == nil:
				delete(failing, value.name())
			}
		}
	}
}
