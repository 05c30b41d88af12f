package bundle

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"unicode"
)

const (
	maxNameBytes = 1024 // of a file in an archive
	copyStep     = 1 << 20
)

// LoadArchive reads an OPA bundle from a tar file compressed with gzip, as opa build
// writes it, by the rules of [Load]. MaxBytes bounds the archive as it comes, and what it
// unpacks to, with the headers of tar. Reading ends at the first limit that is passed.
//
// Names are taken with and without a leading / or ./, as OPA does. It refuses names
// that lead out of the bundle, one name twice, what is neither file nor directory, and
// anything behind the archive's end.
func LoadArchive(ctx context.Context, r io.Reader, o LoadOptions) (*Bundle, error) {
	return Source{Archive: r}.Load(ctx, o)
}

// archive is a walk over an archive.
type archive struct {
	o       LoadOptions
	entries int
	bytes   int64 // of the files read; holes of a sparse file count, too
	seen    map[string]bool
	files   []file
}

// readArchive reads all files, sorted by name: a signature is of all of them.
func readArchive(ctx context.Context, r io.Reader, o LoadOptions) ([]file, error) {
	// Small, since the compressed bytes are counted as they are read; gzip wants to read bytes.
	compressed := bufio.NewReaderSize(&bounded{r: r, rest: o.MaxBytes, err: tooLarge(o.MaxBytes)}, 4<<10)
	unzipped, err := gzip.NewReader(compressed)
	if err != nil {
		return nil, fmt.Errorf("%s: want an archive compressed with gzip: %w", display(o.Name, "."), err)
	}
	stream := &bounded{r: unzipped, rest: o.MaxBytes, err: tooLarge(o.MaxBytes)}
	a := &archive{o: o, seen: map[string]bool{}}
	if err := a.readAll(ctx, tar.NewReader(stream)); err != nil {
		return nil, err
	}
	if err := onlyZeros(ctx, stream); err != nil {
		return nil, fmt.Errorf("%s: %w", display(o.Name, "."), err)
	}
	slices.SortFunc(a.files, byName)
	return a.files, nil
}

func (a *archive) readAll(ctx context.Context, r *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: reading the archive: %w", display(a.o.Name, "."), err)
		}
		if err := a.read(ctx, header, r); err != nil {
			return err
		}
	}
}

func (a *archive) read(ctx context.Context, header *tar.Header, r io.Reader) error {
	if a.entries++; a.entries > a.o.MaxFiles {
		return fmt.Errorf("%s: more than %d files and directories", display(a.o.Name, "."), a.o.MaxFiles)
	}
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil // says how to read others, as git archive does; tar.Reader has seen to it
	}
	if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeDir {
		return fmt.Errorf("%s: %.80q: want files and directories, got a link, device or such (tar type %q)", display(a.o.Name, "."), header.Name, header.Typeflag)
	}
	name, err := insideName(header.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", display(a.o.Name, "."), err)
	}
	if header.Typeflag == tar.TypeDir {
		return nil
	}
	if a.seen[name] {
		return fmt.Errorf("%s: the archive holds this name twice", display(a.o.Name, name))
	}
	a.seen[name] = true
	if header.Size > a.o.MaxBytes-a.bytes {
		return fmt.Errorf("%s: %w", display(a.o.Name, name), tooLarge(a.o.MaxBytes))
	}
	content := make([]byte, header.Size)
	if err := readFull(ctx, r, content); err != nil {
		return fmt.Errorf("%s: reading the archive: %w", display(a.o.Name, name), err)
	}
	a.bytes += int64(len(content))
	a.files = append(a.files, file{name: name, content: content})
	return nil
}

// insideName returns a name of an archive or a signature in the form that has neither / nor
// ./ before it, as opa build and tar write.
func insideName(name string) (string, error) {
	inside, dotted := strings.CutPrefix(name, "./")
	if !dotted {
		inside = strings.TrimPrefix(name, "/")
	}
	if inside = strings.TrimSuffix(inside, "/"); inside == "" {
		inside = "."
	}
	switch {
	case len(name) > maxNameBytes:
		return "", fmt.Errorf("%.80q…: want names of at most %d bytes", name, maxNameBytes)
	case !fs.ValidPath(inside) || strings.ContainsFunc(inside, isUnfit):
		return "", fmt.Errorf("%q: want a plain name within the bundle, without .. or empty parts", name)
	case strings.Count(inside, "/") > maxDirectoryDepth:
		return "", fmt.Errorf("%.80q…: directories are nested deeper than %d", name, maxDirectoryDepth)
	}
	return inside, nil
}

func isUnfit(r rune) bool { return r == '\\' || unicode.IsControl(r) }

// readFull fills the buffer, and gives up with the context.
func readFull(ctx context.Context, r io.Reader, buffer []byte) error {
	for len(buffer) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buffer[:min(copyStep, len(buffer))])
		if err != nil {
			return err
		}
		buffer = buffer[n:]
	}
	return nil
}

func tooLarge(limit int64) error { return fmt.Errorf("the bundle is larger than %d bytes", limit) }

// onlyZeros reads to the end, where gzip compares its checksum. Tar pads with zeros.
func onlyZeros(ctx context.Context, r io.Reader) error {
	buffer := make([]byte, 32<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buffer)
		if slices.ContainsFunc(buffer[:n], func(b byte) bool { return b != 0 }) {
			return errors.New("the archive goes on behind its end")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
	}
}

// bounded fails where [io.LimitedReader] would pretend an end.
type bounded struct {
	r    io.Reader
	rest int64
	err  error
}

// Read reads no byte more than the rest, and one to see whether there are more.
func (b *bounded) Read(p []byte) (int, error) {
	if b.rest < 0 {
		return 0, b.err
	}
	if int64(len(p)) > b.rest+1 {
		p = p[:b.rest+1]
	}
	n, err := b.r.Read(p)
	if b.rest -= int64(n); b.rest < 0 {
		return n - 1, b.err
	}
	return n, err
}
