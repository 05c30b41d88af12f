package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/postern-authz/postern/bundle"
)

const (
	// largestBundle is the largest bundle file or download, packed, in bytes.
	largestBundle = 32 << 20
	// mostReads is how often files are read that change meanwhile, before they are left to
	// the next look.
	mostReads = 4
	// restlessLooks is how often a change that goes on is waited for.
	restlessLooks = 3
)

// local is a directory, a bundle file, or what the binary brings along. It is used by one
// goroutine at a time.
type local struct {
	place        Place
	verification func() *bundle.Verification
	now          func() time.Time

	seen     signature // at the last look
	since    time.Time // when that was seen first
	restless int       // looks in a row that found another signature than the one before
	read     signature // of what was read last
	settled  bool      // a later change would have another signature
	verifier *bundle.Verification
	last     *candidate // that was in order by itself
}

func newLocal(place Place, c Config) *local {
	return &local{place: place, verification: c.Verification, now: c.Now}
}

// due reports whether there may be something new to read. A change has to be still for one
// look, so that who writes several files isn't met between two of them; not for ever.
func (l *local) due() bool {
	if l.place.fsys != nil {
		return false
	}
	s := sign(l.place.path)
	still := !l.see(s)
	switch {
	case l.verifier != l.verification():
		return true
	case s == l.read && l.settled:
		return false
	case still || l.restless >= restlessLooks:
		l.restless = 0
		return true
	}
	l.restless++
	return false
}

// see notes what a look found, and reports whether it is another signature.
func (l *local) see(s signature) bool {
	if s == l.seen {
		return false
	}
	l.seen, l.since = s, l.now()
	return true
}

// load reads what is there now, from one generation of it.
func (l *local) load(ctx context.Context) (*candidate, error) {
	l.verifier = l.verification()
	if l.place.fsys != nil {
		b, err := bundle.Load(ctx, l.place.fsys, bundle.LoadOptions{Name: l.place.prefix()})
		return &candidate{bundle: b, digest: l.place.name}, err
	}
	for range mostReads {
		l.see(sign(l.place.path))
		settled := l.now().Sub(l.since) >= settledAfter
		c, err := l.readOnce(ctx)
		if l.see(sign(l.place.path)) {
			continue
		}
		l.read, l.settled, l.restless = l.seen, settled, 0
		return c, err
	}
	l.read, l.settled = signature{}, false
	return nil, fmt.Errorf("%s: it changes while it is read", l.place.name)
}

func (l *local) readOnce(ctx context.Context) (*candidate, error) {
	info, err := os.Stat(l.place.path)
	if err != nil {
		return nil, &unavailableError{err}
	}
	options := bundle.LoadOptions{Name: l.place.prefix(), Verification: l.verifier}
	if !info.IsDir() {
		return l.readFile(ctx, options)
	}
	fsys := digestingFS{os.DirFS(l.place.path), sha256.New()}
	b, err := bundle.Load(ctx, fsys, options)
	if err != nil {
		return nil, err
	}
	return &candidate{bundle: b, digest: hex.EncodeToString(fsys.sum.Sum(nil))}, nil
}

func (l *local) readFile(ctx context.Context, options bundle.LoadOptions) (*candidate, error) {
	if strings.HasSuffix(l.place.path, ".rego") {
		return nil, fmt.Errorf("%s: want a directory or a bundle file (.tar.gz), got a .rego file; name the directory that it is in", l.place.path)
	}
	content, err := readRegular(l.place.path, largestBundle)
	if err != nil {
		return nil, &unavailableError{err}
	}
	b, err := bundle.LoadArchive(ctx, bytes.NewReader(content), options)
	if err != nil {
		return nil, err
	}
	return &candidate{bundle: b, digest: digestOf(content)}, nil
}

// sameAsLast returns the candidate of the last read if c has the same content: that one was
// judged already.
func (l *local) sameAsLast(c *candidate, anew bool) *candidate {
	if anew || l.last == nil || l.last.digest != c.digest {
		l.last = c
	}
	return l.last
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// readRegular reads a regular file of at most so many bytes. It refuses another kind: a pipe
// could keep its reader waiting for ever.
func readRegular(path string, most int64) (content []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("want %s to be a directory or a bundle file, got %v", path, info.Mode().Type())
	}
	return readAtMost(f, most, path)
}

func readAtMost(r io.Reader, most int64, name string) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return content, err
}

// digestingFS notes the names and contents of all files that are read through it.
type digestingFS struct {
	fs.FS
	sum hash.Hash
}

// Open notes the name.
func (d digestingFS) Open(name string) (fs.File, error) {
	f, err := d.FS.Open(name)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(d.sum, "\x00%q\n", name)
	return digestingFile{f, d.sum}, nil
}

// ReadDir lists a directory.
func (d digestingFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.FS, name) }

// Stat looks at a file.
func (d digestingFS) Stat(name string) (fs.FileInfo, error) { return fs.Stat(d.FS, name) }

type digestingFile struct {
	fs.File
	sum hash.Hash
}

// Read notes what it reads.
func (d digestingFile) Read(p []byte) (int, error) {
	n, err := d.File.Read(p)
	d.sum.Write(p[:n])
	return n, err
}

// followLocal looks at directories and files until ctx ends, and does what Reload asks for.
func (f *Follower) followLocal(ctx context.Context) {
	ticker := time.NewTicker(f.config.PollEvery)
	defer ticker.Stop()
	verifier := f.config.Verification()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.hangups:
			f.reloadAll(ctx)
			continue
		case <-ticker.C:
		}
		if now := f.config.Verification(); now != verifier {
			verifier = now
			f.refreshRemotes()
		}
		for _, o := range f.origins {
			if o.local != nil && o.local.due() {
				f.read(ctx, o, false)
			}
		}
	}
}

// read reads a directory or file, and puts it to use if it is new or a reload is asked for.
func (f *Follower) read(ctx context.Context, o *origin, anew bool) {
	c, err := o.local.load(ctx)
	if err != nil {
		err = o.place.wrap(err)
	} else {
		err = f.offer(ctx, o, o.local.sameAsLast(c, anew))
	}
	if ctx.Err() == nil {
		f.report(ctx, o, err)
	}
}
