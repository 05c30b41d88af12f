package main

import (
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postern-authz/postern/"

// The table of rooms tells all of them, and what each imports of ours. What lies within a room
// and is imported by nobody else is that room.
func TestDocumentedRoomsAreThoseOfTheSource(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./sidecar/...", "./bundle/...", "./policies/...")
	list.Dir = ".."
	output, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	documented := documentedRooms(t)
	roomOf := func(imported string) string {
		room := strings.TrimPrefix(imported, module)
		for room != "." {
			if _, known := documented[room]; known {
				break
			}
			room = path.Dir(room)
		}
		return room
	}
	is := map[string][]string{}
	for line := range strings.Lines(string(output)) {
		words := strings.Fields(line)
		room := roomOf(words[0])
		if strings.HasSuffix(words[0], "test") {
			continue
		}
		if room == "sidecar" && words[0] != module+room || room == "." {
			t.Errorf("docs/architecture.md has no room for %s", words[0])
		}
		for _, imported := range words[1:] {
			if to := roomOf(imported); strings.HasPrefix(imported, module) && to != room {
				is[room] = append(is[room], strings.TrimPrefix(to, "sidecar/"))
			}
		}
	}
	for room, want := range documented {
		slices.Sort(want)
		got := slices.Compact(slices.Sorted(slices.Values(is[room])))
		if room != "sidecar" && !slices.Equal(got, want) { // that one imports all of them
			t.Errorf("docs/architecture.md: %s imports %q, and the table says %q", room, got, want)
		}
	}
}

// documentedRooms is the table: rooms, and what they import of ours.
func documentedRooms(t *testing.T) map[string][]string {
	t.Helper()
	rooms := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|[^|]*\\| ?([^|]*)\\|$").FindAllStringSubmatch(read(t, "docs", "architecture.md"), -1) {
		rooms[strings.TrimSuffix(row[1], "/")] = strings.FieldsFunc(row[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(rooms) < 10 {
		t.Fatalf("want a table of rooms, got %v", rooms)
	}
	return rooms
}
