package main

import (
	"fmt"
	"strings"
)

// report renders what was measured.
func (c *calm) report() (section, error) {
	versions, err := c.versions()
	if err != nil {
		return section{}, err
	}
	var b strings.Builder
	c.writeLoad(&b, versions)
	c.writeRatios(&b)
	c.writeSides(&b)
	c.writeGenerator(&b)
	b.WriteString("\n![p99 while permissions change over p99 of the control](plots/calm-ratios.svg)\n")
	b.WriteString("\n![Percentiles of latency at half of the maximum](plots/calm-latency.svg)\n")
	return section{markdown: b.String(), plots: map[string]string{
		"calm-ratios.svg": c.ratioPlot().svg(), "calm-latency.svg": c.latencyPlot().svg(),
	}}, nil
}

func (c *calm) writeLoad(b *strings.Builder, versions string) {
	o := c.options
	fmt.Fprintf(b, "%s\n\nLoad: legs of %g s, %d alternations (variants of Postern: half of them), %d connections for the questions and as many for what arrives beside them, "+
		"%g of these a second; %d live permissions.\n", versions, o.calmSeconds, o.calmRounds, o.connections, o.events, o.permissions)
	fmt.Fprintf(b, "The maximum, by the closed loop: Postern %.0f questions/s, OPA %.0f/s. A sync of 4 KiB where the data are: p50 %s, p99 %s.\n\n",
		c.rows[0].patient.maximum, c.maximumOf("OPA"), timeText(c.syncs.percentile(50)), timeText(c.syncs.percentile(99)))
}

func (c *calm) maximumOf(title string) float64 {
	for _, row := range c.rows {
		if row.patient.title == title {
			return row.patient.maximum
		}
	}
	return 0
}

// paceText says how fast a row's questions come.
func (r *calmRow) paceText() string {
	return map[float64]string{shares[0]: "a tenth", shares[1]: "half"}[r.share]
}

func p50Of(l calmLeg) float64 { return float64(l.p50) }
func p99Of(l calmLeg) float64 { return float64(l.p99) }

// ratio compares two kinds of load alternation by alternation.
func (r *calmRow) ratio(of, against kind, value func(calmLeg) float64) spread {
	ratios := make([]float64, len(r.sides[of].legs))
	for i := range ratios {
		ratios[i] = value(r.sides[of].legs[i]) / value(r.sides[against].legs[i])
	}
	return spreadOf(ratios)
}

func (c *calm) writeRatios(b *strings.Builder) {
	table(b, "ratio within an alternation, questions at this part of the maximum", "p50, median", "min", "max", "p99, median", "min", "max")
	line := func(r *calmRow, what string, of, against kind) {
		fmt.Fprintf(b, "| %s, %s: %s | %s %s\n", r.patient.title, r.paceText(), what, r.ratio(of, against, p50Of).row(), r.ratio(of, against, p99Of).row())
	}
	for _, r := range c.rows {
		line(r, "updates / control", updating, unchanged)
	}
	for _, r := range c.rows {
		if len(r.sides[quiet].legs) > 0 {
			line(r, "control / nothing beside the questions", unchanged, quiet)
		}
	}
}

// kindText names what arrives beside the questions.
func (r *calmRow) kindText(k kind) string {
	if r.patient.title == "OPA" {
		return map[kind]string{updating: "`PUT` of permissions", unchanged: "`GET /health`"}[k]
	}
	return map[kind]string{updating: "permission events", unchanged: "foreign events", quiet: "nothing"}[k]
}

func (c *calm) writeSides(b *strings.Builder) {
	fmt.Fprintln(b)
	table(b, "server, questions/s, what arrives beside them; all legs together", "p50", "p99", "p99.9", "server's cores", "acknowledged, p50", "p99")
	for _, r := range c.rows {
		for _, k := range r.patient.kinds {
			s := &r.sides[k]
			acknowledged := "– | –"
			if s.acknowledged.total > 0 {
				acknowledged = timeText(s.acknowledged.percentile(50)) + " | " + timeText(s.acknowledged.percentile(99))
			}
			fmt.Fprintf(b, "| %s, %.0f/s, %s | %s | %s | %s | %.2f | %s |\n", r.patient.title, r.pace.perSecond, r.kindText(k),
				timeText(s.latencies.percentile(50)), timeText(s.latencies.percentile(99)), timeText(s.latencies.percentile(99.9)),
				spreadOf(s.cores()).median, acknowledged)
		}
	}
}

func (s *side) cores() []float64 {
	cores := make([]float64, len(s.legs))
	for i, l := range s.legs {
		cores[i] = l.cpu
	}
	return cores
}

// writeGenerator tells what was counted, and how well the generator kept its pace.
func (c *calm) writeGenerator(b *strings.Builder) {
	var questions, webhooks, writes uint64
	for _, r := range c.rows {
		for k := range r.sides {
			questions += r.sides[k].latencies.total
			if r.patient.title != "OPA" {
				webhooks += r.sides[k].acknowledged.total
			}
		}
		if r.patient.title == "OPA" {
			writes += r.sides[updating].acknowledged.total
		}
	}
	fmt.Fprintf(b, "\nAll %d questions were answered right, all %d webhooks with 201 and the outcome that they should have, all %d `PUT`s with 204. "+
		"Questions were sent later than they were due by p50 %s, p99 %s, at most %s; %d more were due while all connections waited for an answer.\n",
		questions, webhooks, writes, timeText(c.lateness.percentile(50)), timeText(c.lateness.percentile(99)), timeText(c.lateness.percentile(100)), c.queued)
}

func (c *calm) ratioPlot() barPlot {
	p := barPlot{
		title: fmt.Sprintf("p99 while %g permissions a second change, over p99 of the control", c.options.events),
		axis:  "ratio within an alternation, median and min to max; questions at that part of the maximum", format: "%.2f", mark: 1,
	}
	for _, r := range c.rows {
		color := sky
		switch r.patient.title {
		case "Postern":
			color = blue
		case "OPA":
			color = orange
		}
		p.bars = append(p.bars, bar{r.patient.title + ", " + r.paceText(), color, r.ratio(updating, unchanged, p99Of)})
	}
	return p
}

func (c *calm) latencyPlot() curvePlot {
	p := curvePlot{title: "How long an answer takes at half of the server's maximum"}
	for _, r := range c.rows {
		color := map[string]string{"Postern": blue, "OPA": orange}[r.patient.title]
		if color == "" || r.share != shares[1] {
			continue
		}
		for _, k := range r.patient.kinds {
			v := curve{label: r.patient.title + ", " + strings.ReplaceAll(r.kindText(k), "`", ""), color: color, dashed: k == unchanged, latencies: &r.sides[k].latencies}
			if k == quiet {
				v.color = gray
			}
			p.curves = append(p.curves, v)
		}
	}
	return p
}
