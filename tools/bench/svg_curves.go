package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

const (
	curvesTop    = 72
	curvesLeft   = 70
	curvesRight  = 270 // for the legend
	curvesHeight = 300
)

// curve is what percentiles of latencies look like; a dashed one is a control.
type curve struct {
	label     string
	color     string
	dashed    bool
	latencies *histogram
}

// curvePlot draws percentiles over latencies, both on scales that give the tail its room.
type curvePlot struct {
	title  string
	curves []curve
}

// percentileTicks are the ticks of the axis, and the ends of it.
var percentileTicks = []float64{10, 50, 90, 99, 99.9}

// nines is the scale of percentiles: as far from 90 to 99 as from 99 to 99.9.
func nines(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

func (p curvePlot) svg() string {
	bottom := float64(curvesTop + curvesHeight)
	c := newCanvas(bottom+axisHeight, p.title)
	least, most := p.decades()
	last := nines(percentileTicks[len(percentileTicks)-1])
	x := func(percentile float64) float64 {
		return curvesLeft + (nines(percentile)-nines(percentileTicks[0]))/(last-nines(percentileTicks[0]))*(plotWidth-curvesLeft-curvesRight)
	}
	y := func(latency time.Duration) float64 {
		return bottom - (math.Log10(max(latency.Seconds(), 1e-9))-least)/(most-least)*curvesHeight
	}
	p.axes(c, x, y, least, most)
	for i, curve := range p.curves {
		curve.draw(c, x, y)
		curve.legend(c, curvesTop+10+float64(i)*22)
	}
	return c.end()
}

// decades returns the powers of ten, in seconds, between which all latencies are.
func (p curvePlot) decades() (least, most float64) {
	least, most = 9, -9
	for _, curve := range p.curves {
		first, last := percentileTicks[0], percentileTicks[len(percentileTicks)-1]
		least = min(least, math.Floor(math.Log10(max(curve.latencies.percentile(first).Seconds(), 1e-9))))
		most = max(most, math.Ceil(math.Log10(max(curve.latencies.percentile(last).Seconds(), 1e-9))))
	}
	return least, max(most, least+1)
}

func (p curvePlot) axes(c *canvas, x func(float64) float64, y func(time.Duration) float64, least, most float64) {
	bottom := float64(curvesTop + curvesHeight)
	left, right := x(percentileTicks[0]), x(percentileTicks[len(percentileTicks)-1])
	for _, percentile := range percentileTicks {
		c.line(x(percentile), curvesTop, x(percentile), bottom, faint, 1)
		c.text(x(percentile), bottom+16, `text-anchor="middle"`, fmt.Sprintf("%g", percentile))
	}
	c.text((left+right)/2, bottom+38, `text-anchor="middle"`, "percentile of the questions")
	for decade := least; decade <= most; decade++ {
		for _, factor := range []float64{1, 2, 5} {
			seconds := factor * math.Pow(10, decade)
			if decade == most && factor > 1 {
				break
			}
			latency := time.Duration(math.Round(seconds * 1e9))
			c.line(left, y(latency), right, y(latency), faint, 1)
			c.text(left-8, y(latency)+textShift, `text-anchor="end"`, latency.String())
		}
	}
	c.text(16, curvesTop-22, "", "latency, from when the question was due")
}

func (v curve) dash() string {
	if v.dashed {
		return ` stroke-dasharray="6 4"`
	}
	return ""
}

func (v curve) draw(c *canvas, x func(float64) float64, y func(time.Duration) float64) {
	var points []string
	last := nines(percentileTicks[len(percentileTicks)-1])
	for n := nines(percentileTicks[0]); n <= last+0.001; n += 0.05 {
		percentile := 100 * (1 - math.Pow(10, -n))
		points = append(points, fmt.Sprintf("%.1f,%.1f", x(percentile), y(v.latencies.percentile(percentile))))
	}
	fmt.Fprintf(c, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", strings.Join(points, " "), v.color, v.dash())
}

func (v curve) legend(c *canvas, middle float64) {
	left := float64(plotWidth - curvesRight + 20)
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="2"%s/>`+"\n", left, middle, left+28, middle, v.color, v.dash())
	c.text(left+36, middle+textShift, "", v.label)
}
