package main

import (
	"fmt"
	"strings"
	"time"
)

// report tells what was measured, beside the targets.
func (m *million) report() (section, error) {
	versions, err := m.versions()
	if err != nil {
		return section{}, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d live permissions and %d deletions: a file of %d MiB, which `postern catalog restore` filled in %.0f s. "+
		"The file is in the page cache, but for the bounded sidecar, which has to make do with its own.\n\n", versions, m.large.live, m.large.deleted, m.fileSize>>20, m.filled.Seconds())
	m.writeTargets(&b)
	m.writeMemory(&b)
	m.writeBounded(&b)
	b.WriteString("\n![Anonymous memory](plots/million-memory.svg)\n")
	return section{markdown: b.String(), plots: map[string]string{"million-memory.svg": m.plot().svg()}}, nil
}

func (m *million) writeTargets(b *strings.Builder) {
	table(b, "what", "target", "median", "min", "max")
	fmt.Fprintf(b, "| **from the start to /readyz, s** | < 1 | %s\n", spreadOf(m.starts).row())
	fmt.Fprintf(b, "| **the same after kill -9 amid events, s** | < 1 | %s\n", spreadOf(m.restarts).row())
	var differences, hits, misses []float64
	for _, r := range m.keyed {
		differences = append(differences, microseconds(r.miss-r.hit))
		hits, misses = append(hits, microseconds(r.hit)), append(misses, microseconds(r.miss))
	}
	fmt.Fprintf(b, "| **a question that misses the LRU, above one that hits, µs** | ≤ 25 | %s\n", spreadOf(differences).row())
	if ratios := m.bounded.ratios(); ratios != nil {
		fmt.Fprintf(b, "| **questions/s inside %d MiB / unbounded** | ≥ 0.90 | %s\n", boundedMemory>>20, spreadOf(ratios).row())
	}
	fmt.Fprintf(b, "| a question that hits, µs | | %s\n", spreadOf(hits).row())
	fmt.Fprintf(b, "| a question that misses, µs | | %s\n", spreadOf(misses).row())
	fmt.Fprintf(b, "\nStarts: %d of each kind. Questions that hit or miss: medians of %d each in every round, one connection, one question after the other, %d rounds. ",
		len(m.starts), keyedBlock*keyedAsked, len(m.keyed))
	fmt.Fprintf(b, "`opa run --server` on the same data, a file of %d MiB, answered /health after %.1f s.\n\n", m.opaData>>20, m.opaStart.Seconds())
}

// plot shows the memory after the longest rest; the whiskers, what was measured before.
func (m *million) plot() barPlot {
	p := barPlot{title: "Anonymous memory with a million permissions, after the last rest; least and most before it", axis: "MB", format: "%.0f"}
	colors := []string{blue, sky, orange}
	for i, at := range m.atRest {
		values := []float64{float64(at.fresh) / 1e6}
		for _, bytes := range at.after {
			values = append(values, float64(bytes)/1e6)
		}
		s := spreadOf(values)
		s.median = values[len(values)-1]
		p.bars = append(p.bars, bar{label: strings.ReplaceAll(at.name, "`", ""), color: colors[i%len(colors)], spread: s})
	}
	return p
}

func microseconds(d time.Duration) float64 { return d.Seconds() * 1e6 }

// writeMemory tells what lay in memory right after questions and later.
func (m *million) writeMemory(b *strings.Builder) {
	columns := []string{"anonymous memory (RssAnon), MB", "target at rest", "started", "names asked for"}
	for _, quiet := range m.atRest[0].quiet {
		columns = append(columns, fmt.Sprintf("%.0f s after them", quiet.Seconds()))
	}
	table(b, columns...)
	for _, at := range m.atRest {
		fmt.Fprintf(b, "| %s | %s | %s | %d", at.name, at.target, megabytes(at.fresh), at.asked)
		for _, bytes := range at.after {
			fmt.Fprintf(b, " | %s", megabytes(bytes))
		}
		b.WriteString(" |\n")
	}
	b.WriteString("\nEach name once, so that the LRU is full. What the collector left stays for a while: without new garbage, Go collects again after two minutes. The targets are in MB of a million bytes, and so is the table.\n\n")
}

// megabytes renders sizes in millions of bytes.
func megabytes(sizes ...int64) string {
	texts := make([]string, len(sizes))
	for i, bytes := range sizes {
		texts[i] = fmt.Sprintf("%.1f", float64(bytes)/1e6)
	}
	return strings.Join(texts, ", ")
}

// ratios compares the legs of each round; nil when there are none.
func (b *boundedFigures) ratios() (ratios []float64) {
	for i := range b.inside {
		ratios = append(ratios, b.inside[i]/b.free[i])
	}
	return ratios
}

func (m *million) writeBounded(b *strings.Builder) {
	f := m.bounded
	if f.missing != "" {
		fmt.Fprintf(b, "**Not measured:** throughput inside a cgroup of %d MiB, since none can be written here (%s). It takes root.\n", boundedMemory>>20, f.missing)
		return
	}
	if f.pressure.kills > 0 {
		fmt.Fprintf(b, "**Inside a cgroup of %d MiB the kernel killed %d processes for want of memory**, after %d rounds that count.\n", boundedMemory>>20, f.pressure.kills, len(f.inside))
		return
	}
	table(b, fmt.Sprintf("%d connections, %d events/s beside", m.options.connections, trickleRate), "questions/s, median", "events acknowledged/s", "found in the LRU")
	seconds := f.elapsed.Seconds()
	fmt.Fprintf(b, "| unbounded | %.0f | %.0f | %s |\n", median(f.free), float64(f.freeEvents)/seconds, f.freeLook.ratio())
	fmt.Fprintf(b, "| inside a cgroup of %d MiB | %.0f | %.0f | %s |\n", boundedMemory>>20, median(f.inside), float64(f.events)/seconds, f.look.ratio())
	fmt.Fprintf(b, "\n%d rounds of %g s for each, in turns, over a trace of %d questions by Zipf's law over all permissions. The kernel killed %d processes inside (target 0), "+
		"and had to take pages back %d times before it could give one. Anonymous memory inside, in the end: %s MB. "+
		"The library that sets GOMEMLIMIT from the cgroup finds %d MiB there.\n",
		len(f.inside), m.options.seconds, len(m.questions), f.pressure.kills, f.pressure.atLimit, megabytes(f.anonymous), f.limitFound>>20)
}
