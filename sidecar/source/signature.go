package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bounds of a look at a directory. What is larger isn't read either, and the reader says so.
const (
	mostEntries  = 10_000
	deepestEntry = 32
)

// configMapLink is what Kubernetes swaps when a ConfigMap or a Secret changes.
const configMapLink = "..data"

// settledAfter is how long ago a change must have been seen until a later one can't have the same
// times: some file systems count in whole seconds, and by another clock than this machine's.
const settledAfter = 2 * time.Second

// signature is what can be seen of files without reading them.
type signature [sha256.Size]byte

// sign looks at a file, or at a directory and all that is visible in it, through symbolic
// links: so it sees an editor's write, a rename over a file, and the swap of ..data by which
// a Kubernetes ConfigMap changes.
func sign(path string) signature {
	l := &look{digest: sha256.New()}
	l.at(path, 0)
	return signature(l.digest.Sum(nil))
}

type look struct {
	digest  hash.Hash
	entries int
}

func (l *look) at(path string, depth int) {
	info, err := os.Stat(path)
	if err != nil {
		l.failed(path, err)
		return
	}
	l.note(path, info)
	if info.IsDir() && depth <= deepestEntry {
		l.in(path, depth)
	}
}

func (l *look) note(path string, info fs.FileInfo) {
	changed := info.ModTime()
	var device, inode uint64
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		device, inode = uint64(system.Dev), uint64(system.Ino) //nolint:unconvert // Dev has other types on other systems
		if at := changeTime(system); at.After(changed) {
			changed = at // which nobody can set back, unlike the other
		}
	}
	fmt.Fprintf(l.digest, "%q %v %d %d %d %d\n", path, info.Mode(), info.Size(), changed.UnixNano(), device, inode)
}

func (l *look) in(directory string, depth int) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		l.failed(directory, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if name == configMapLink { // a new one at each swap, even one that goes back
			if info, err := entry.Info(); err == nil {
				l.note(filepath.Join(directory, name), info)
			}
		}
		if strings.HasPrefix(name, ".") && name != ".manifest" && name != ".manifest.pb" && name != ".signatures.json" {
			continue // as the reader does; the history of a repository can be long
		}
		if l.entries++; l.entries > mostEntries {
			return
		}
		l.at(filepath.Join(directory, name), depth+1)
	}
}

func (l *look) failed(path string, err error) {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	fmt.Fprintf(l.digest, "%q %v\n", path, err)
}
