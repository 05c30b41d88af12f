package bundle

import (
	"archive/tar"
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
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return byName(file{name: a.Name}, file{name: b.Name})
	})
	for _, f := range sorted {
		header := &tar.Header{Name: f.Name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.Content)), Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(f.Content); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zipped.Close()
}
