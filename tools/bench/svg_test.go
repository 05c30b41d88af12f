package main

import (
	"encoding/xml"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

// element is any element of an SVG document.
type element struct {
	XMLName  xml.Name
	Width    string    `xml:"width,attr"`
	Fill     string    `xml:"fill,attr"`
	Points   string    `xml:"points,attr"`
	Text     string    `xml:",chardata"`
	Elements []element `xml:",any"`
}

func parseSVG(t *testing.T, text string) element {
	t.Helper()
	var root element
	if err := xml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatalf("reading %s: %v", text, err)
	}
	return root
}

func TestBarsAreAsLongAsTheirMedians(t *testing.T) {
	root := parseSVG(t, barPlot{title: "a < b", format: "%.1f", mark: 1, bars: []bar{
		{"first & only", blue, spread{2, 1, 4}}, {"second", orange, spread{3, 3, 3}},
	}}.svg())
	widths, texts := map[string]float64{}, ""
	for _, e := range root.Elements {
		texts += e.Text + "\n"
		if e.XMLName.Local == "rect" && e.Fill != "#ffffff" {
			width, err := strconv.ParseFloat(e.Width, 64)
			if err != nil {
				t.Fatal(err)
			}
			widths[e.Fill] = width
		}
	}
	if ratio := widths[orange] / widths[blue]; math.Abs(ratio-1.5) > 0.01 {
		t.Errorf("want the second bar 1.5 times as long, got %g of %v", ratio, widths)
	}
	for _, want := range []string{"a < b\n", "first & only\n", "second\n", "2.0\n", "3.0\n"} {
		if !strings.Contains(texts, want) {
			t.Errorf("want the text %q, got %q", want, texts)
		}
	}
}

func TestTicksAreFewAndRound(t *testing.T) {
	for _, most := range []float64{0.03, 0.7, 1, 1.99, 12, 61174} {
		step := tickStep(most)
		if ticks := most / step; ticks < 2 || ticks > axisTicks {
			t.Errorf("up to %g: want 2 to %d steps, got %g of %g", most, axisTicks, ticks, step)
		}
		if digits := strconv.FormatFloat(roundTo(3*step, step), 'g', -1, 64); len(digits) > 5 {
			t.Errorf("up to %g: want a round tick, got %s", most, digits)
		}
	}
}

func TestCurvesGoUpWithThePercentile(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * 10 * time.Microsecond)
	}
	root := parseSVG(t, curvePlot{title: "latency", curves: []curve{{"only", blue, true, &h}}}.svg())
	for _, e := range root.Elements {
		if e.Points == "" {
			continue
		}
		beforeX, beforeY := 0.0, math.Inf(1)
		for point := range strings.FieldsSeq(e.Points) {
			x, y := coordinates(t, point)
			if x <= beforeX || y > beforeY || y < curvesTop || y > curvesTop+curvesHeight {
				t.Errorf("want points to the right and up inside the axes, got %s behind %g,%g", point, beforeX, beforeY)
			}
			beforeX, beforeY = x, y
		}
		return
	}
	t.Error("want a curve")
}

func coordinates(t *testing.T, point string) (x, y float64) {
	t.Helper()
	left, right, _ := strings.Cut(point, ",")
	x, xErr := strconv.ParseFloat(left, 64)
	y, yErr := strconv.ParseFloat(right, 64)
	if xErr != nil || yErr != nil {
		t.Fatal(xErr, yErr)
	}
	return x, y
}
