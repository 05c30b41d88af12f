package bundle

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
)

// ArchiveFile is one file of an archive that is written.
type ArchiveFile struct {
	Name    string // slash-separated, from the top of the bundle
	Size    int64  // of Content, in bytes
	Content io.Reader
}

// WriteArchive writes files as a .tar.gz, in their order. Equal files make equal bytes: no
// times and no owners are part of it. The error is that of w or of a Content, or says
// that one has another size than announced.
func WriteArchive(w io.Writer, files ...ArchiveFile) error {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, f := range files {
		if err := writeFile(archive, f); err != nil {
			return fmt.Errorf("writing %s: %w", f.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return compressed.Close()
}

func writeFile(archive *tar.Writer, f ArchiveFile) error {
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: 0o600}); err != nil {
		return err
	}
	if n, err := io.Copy(archive, f.Content); err != nil {
		return err
	} else if n != f.Size {
		return fmt.Errorf("want %d bytes, got %d", f.Size, n)
	}
	return nil
}
