package main

import (
	"fmt"
	"strings"
)

// tokenCost is how long a question took with a token and without one, by round, in µs.
type tokenCost struct{ with, without []float64 }

// added returns what the token adds, for each round.
func (c tokenCost) added() []float64 {
	added := make([]float64, len(c.with))
	for i := range added {
		added[i] = c.with[i] - c.without[i]
	}
	return added
}

// over compares what a token adds round by round.
func (c tokenCost) over(against tokenCost) spread {
	of, to := c.added(), against.added()
	ratios := make([]float64, len(of))
	for i := range ratios {
		ratios[i] = of[i] / to[i]
	}
	return spreadOf(ratios)
}

// tokenCosts are what is compared.
type tokenCosts struct{ posternRepeated, posternNew, opaRemembering, opaRepeated, opaNew tokenCost }

func (t *tokens) costs() tokenCosts {
	cost := func(with, without *contender) tokenCost {
		return tokenCost{t.alone[with].medians, t.alone[without].medians}
	}
	return tokenCosts{
		posternRepeated: cost(t.postern[repeatedToken], t.postern[withoutToken]),
		posternNew:      cost(t.postern[newToken], t.postern[withoutToken]),
		opaRemembering:  cost(t.opaRemembering, t.opa[withoutToken]),
		opaRepeated:     cost(t.opa[repeatedToken], t.opa[withoutToken]),
		opaNew:          cost(t.opa[newToken], t.opa[withoutToken]),
	}
}

// report renders what was measured, once the rounds are over.
func (t *tokens) report() (section, error) {
	versions, err := t.versions()
	if err != nil {
		return section{}, err
	}
	var b strings.Builder
	o := t.options
	fmt.Fprintf(&b, "%s\n\nLoad: %d rounds of %g s for each server, %d connections, %d live permissions; questions of %d bytes, with a token %d; RS256 with %d bits, %d new tokens in turns. One question at a time: medians of %d for each server in every round.\n",
		versions, o.rounds, o.seconds, o.connections, o.permissions,
		len(t.traces.loaded[withoutToken][0].body), len(t.traces.loaded[repeatedToken][0].body), tokenKeyBits, underLoad+aloneTokens, aloneBlock*aloneBlocks)
	fmt.Fprintf(&b, "In the rounds Postern remembered all %.0f repeated tokens, and verified all %.0f new ones. Every answer was an allow with the reason `granted`; before the rounds each server denied a forged token.\n\n",
		t.counted[repeatedToken].remembered, t.counted[newToken].verified)
	t.costs().write(&b)
	t.writeRatios(&b)
	writeServers(&b, t.titled())
	b.WriteString("\n![Time that a token adds](plots/token.svg)\n")
	return section{markdown: b.String(), plots: map[string]string{"token.svg": t.costs().plot().svg()}}, nil
}

func (c tokenCosts) write(b *strings.Builder) {
	table(b, "time that a token adds to an answer, ratio within a round", "median", "min", "max")
	for _, row := range []struct {
		name        string
		of, against tokenCost
	}{
		{"**Postern: a repeated token / a new one**", c.posternRepeated, c.posternNew},
		{"**a repeated token: Postern / OPA's `io.jwt.decode_verify`, as shipped**", c.posternRepeated, c.opaRepeated},
		{"a repeated token: Postern / OPA with its cache of tokens on", c.posternRepeated, c.opaRemembering},
		{"a new token: Postern / OPA", c.posternNew, c.opaNew},
	} {
		fmt.Fprintf(b, "| %s | %s\n", row.name, row.of.over(row.against).row())
	}
	fmt.Fprintln(b)
	table(b, "one question at a time, µs", "median", "min", "max")
	fmt.Fprintf(b, "| Postern, the question with an unread token | %s\n", spreadOf(c.posternRepeated.without).row())
	fmt.Fprintf(b, "| OPA, the question with an unread token | %s\n", spreadOf(c.opaRepeated.without).row())
	for _, row := range c.titled() {
		fmt.Fprintf(b, "| %s, adds | %s\n", row.title, spreadOf(row.of.added()).row())
	}
	fmt.Fprintln(b)
}

// titledCost is a cost as the table and the plot call it.
type titledCost struct {
	title string
	of    tokenCost
}

func (c tokenCosts) titled() []titledCost {
	return []titledCost{
		{"Postern, a repeated token", c.posternRepeated},
		{"Postern, a new token", c.posternNew},
		{"OPA with its cache, a repeated token", c.opaRemembering},
		{"OPA, a repeated token", c.opaRepeated},
		{"OPA, a new token", c.opaNew},
	}
}

func (c tokenCosts) plot() barPlot {
	p := barPlot{title: "Time that an access token adds to an answer", axis: "µs, one question at a time: median of the rounds, and from min to max", format: "%.1f"}
	for i, row := range c.titled() {
		color := []string{blue, sky, sand, orange, orange}[i]
		p.bars = append(p.bars, bar{row.title, color, spreadOf(row.of.added())})
	}
	return p
}

func (t *tokens) writeRatios(b *strings.Builder) {
	table(b, "requests/s, ratio within a round", "median", "min", "max")
	for _, row := range []struct {
		name        string
		of, against *contender
	}{
		{"**a repeated token: Postern / OPA, as shipped**", t.postern[repeatedToken], t.opa[repeatedToken]},
		{"a repeated token: Postern / OPA with its cache on", t.postern[repeatedToken], t.opaRemembering},
		{"a new token: Postern / OPA", t.postern[newToken], t.opa[newToken]},
		{"without a token: Postern / OPA", t.postern[withoutToken], t.opa[withoutToken]},
		{"Postern: a repeated token / without one", t.postern[repeatedToken], t.postern[withoutToken]},
		{"Postern: a new token / without one", t.postern[newToken], t.postern[withoutToken]},
	} {
		fmt.Fprintf(b, "| %s | %s\n", row.name, ratio(row.of, row.against, perSecond).row())
	}
}

func (t *tokens) titled() []titled {
	return []titled{
		{"Postern, without a token", t.postern[withoutToken]},
		{"Postern, a repeated token", t.postern[repeatedToken]},
		{"Postern, a new token", t.postern[newToken]},
		{"OPA, without a token", t.opa[withoutToken]},
		{"OPA with its cache, a repeated token", t.opaRemembering},
		{"OPA, a repeated token", t.opa[repeatedToken]},
		{"OPA, a new token", t.opa[newToken]},
	}
}
