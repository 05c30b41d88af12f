package bundle

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
)

// Stream is one file of an archive, of whatever size.
type Stream struct {
	Name    string // slash-separated, from the top of the bundle
	Size    int64  // of Content, in bytes
	Content io.Reader
}

// WriteStreams writes files as a .tar.gz, in their order, and keeps none of them in memory. It is
// for data that is large: compression is the fastest. Equal files make equal bytes: no times
// and no owners are part of it. The error is that of w or of a Content, or says that one has
// another size than announced.
func WriteStreams(w io.Writer, files ...Stream) error {
	return writeStreams(w, gzip.BestSpeed, 0o600, files)
}

func writeStreams(w io.Writer, level int, mode int64, files []Stream) error {
	compressed, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, f := range files {
		if err := writeStream(archive, mode, f); err != nil {
			return fmt.Errorf("writing %s: %w", f.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return compressed.Close()
}

func writeStream(archive *tar.Writer, mode int64, f Stream) error {
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: mode, Format: tar.FormatPAX}); err != nil {
		return err
	}
	if n, err := io.Copy(archive, f.Content); err != nil {
		return err
	} else if n != f.Size {
		return fmt.Errorf("want %d bytes, got %d", f.Size, n)
	}
	return nil
}
