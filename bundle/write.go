package bundle

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
)

// File is a file to put into an archive. Its name is slash-separated and relative to the top.
type File struct {
	Name    string
	Content []byte
}

// WriteArchive writes files as an OPA bundle, sorted by name. Equal files make equal bytes, by
// one version of Go: times, owners and modes are the same for all.
func WriteArchive(w io.Writer, files []File) error {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return byName(file{name: a.Name}, file{name: b.Name})
	})
	streams := make([]Stream, len(sorted))
	for i, f := range sorted {
		streams[i] = Stream{f.Name, int64(len(f.Content)), bytes.NewReader(f.Content)}
	}
	return writeStreams(w, gzip.DefaultCompression, 0o644, streams)
}
