package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Measures of a plot, in pixels of its own.
const (
	plotWidth   = 860
	plotLeft    = 340 // of the labels of bars
	plotRight   = 70  // behind the longest bar, for its value
	plotTop     = 44
	rowHeight   = 26
	barHeight   = 16
	textShift   = 4 // from the middle of a line to its baseline
	axisTicks   = 6
	axisHeight  = 52
	whiskerHalf = 4
)

// Colors that keep apart for most eyes, on the white ground that every plot brings along.
const (
	ink    = "#1f2328"
	faint  = "#d0d7de"
	blue   = "#2f6db5"
	sky    = "#8fb8de"
	orange = "#d9822b"
	sand   = "#f0bf8a"
	gray   = "#8c959f"
)

// halo keeps a text readable where a line runs through it.
const halo = `stroke="#ffffff" stroke-width="4" paint-order="stroke"`

// canvas collects an SVG document.
type canvas struct{ strings.Builder }

func newCanvas(height float64, title string) *canvas {
	c := &canvas{}
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" font-family="system-ui, sans-serif" font-size="12" role="img">`+"\n",
		plotWidth, height, plotWidth)
	fmt.Fprintf(c, "<title>%s</title>\n", html.EscapeString(title))
	fmt.Fprintf(c, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	c.text(16, 24, `font-size="15" font-weight="600"`, title)
	return c
}

func (c *canvas) text(x, y float64, attributes, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" fill="%s" %s>%s</text>`+"\n", x, y, ink, attributes, html.EscapeString(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64, color string, width float64) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"/>`+"\n", x1, y1, x2, y2, color, width)
}

func (c *canvas) rect(x, y, width, height float64, color string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, height, color)
}

func (c *canvas) end() string {
	fmt.Fprintln(c, "</svg>")
	return c.String()
}

// bar is a row of a plot of bars: its length is the median, its whisker goes from the
// least to the most.
type bar struct {
	label string
	color string
	spread
}

// barPlot is a plot of horizontal bars.
type barPlot struct {
	title  string
	axis   string
	format string // of the values, such as %.2f
	mark   float64
	bars   []bar
}

// svg renders the plot. A mark that isn't 0 is a line across all bars.
func (p barPlot) svg() string {
	bottom := plotTop + float64(len(p.bars)*rowHeight)
	c := newCanvas(bottom+axisHeight, p.title)
	most := p.mark
	for _, b := range p.bars {
		most = max(most, b.most)
	}
	step := tickStep(most)
	x := func(value float64) float64 { return plotLeft + value/most*(plotWidth-plotLeft-plotRight) }
	middle := func(row int) float64 { return plotTop + (float64(row)+0.5)*rowHeight }
	for value := 0.0; value <= most*1.0001; value += step {
		c.line(x(value), plotTop, x(value), bottom, faint, 1)
		c.text(x(value), bottom+16, `text-anchor="middle"`, fmt.Sprintf("%g", roundTo(value, step)))
	}
	c.text(x(most/2), bottom+38, `text-anchor="middle"`, p.axis)
	for i, b := range p.bars {
		b.draw(c, middle(i), x)
	}
	if p.mark > 0 {
		c.line(x(p.mark), plotTop-4, x(p.mark), bottom, ink, 1.5)
	}
	for i, b := range p.bars {
		c.text(x(max(b.most, b.median))+8, middle(i)+textShift, halo, fmt.Sprintf(p.format, b.median))
	}
	return c.end()
}

func (b bar) draw(c *canvas, middle float64, x func(float64) float64) {
	c.text(plotLeft-10, middle+textShift, `text-anchor="end"`, b.label)
	c.rect(x(0), middle-barHeight/2, x(b.median)-x(0), barHeight, b.color)
	c.line(x(b.least), middle, x(b.most), middle, ink, 1.2)
	for _, end := range []float64{b.least, b.most} {
		c.line(x(end), middle-whiskerHalf, x(end), middle+whiskerHalf, ink, 1.2)
	}
}

// tickStep returns a round step that gives an axis up to most about axisTicks ticks.
func tickStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/axisTicks)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power*axisTicks >= most {
			return factor * power
		}
	}
	return 10 * power
}

// roundTo takes away what adding up steps left behind.
func roundTo(value, step float64) float64 {
	digits := math.Pow(10, math.Max(0, -math.Floor(math.Log10(step))))
	return math.Round(value*digits) / digits
}
