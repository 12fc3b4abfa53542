package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes of the chart.
const (
	panelWidth  = 5.2 * vg.Inch
	chartHeight = 5.2 * vg.Inch
	legendWidth = 2.7 * vg.Inch
	dotsPerInch = 120
)

// styles are those of the lines, by name. The colours can be told apart by
// people who do not see all of them (they are Okabe's and Ito's), the marks by
// everybody.
var styles = map[string]struct {
	color color.RGBA
	mark  draw.GlyphDrawer
}{
	"default":    {color.RGBA{0x00, 0x72, 0xb2, 0xff}, draw.CircleGlyph{}},
	"unpinned":   {color.RGBA{0x00, 0x9e, 0x73, 0xff}, draw.SquareGlyph{}},
	"samethread": {color.RGBA{0xcc, 0x79, 0xa7, 0xff}, draw.TriangleGlyph{}},
	"fresh":      {color.RGBA{0xd5, 0x5e, 0x00, 0xff}, draw.CrossGlyph{}},
	"asgiref":    {color.RGBA{0xe6, 0x9f, 0x00, 0xff}, draw.PyramidGlyph{}},
	"anyio":      {color.RGBA{0x55, 0x55, 0x55, 0xff}, draw.PlusGlyph{}},
}

// drawDepth draws the cost of a level over the depth, a panel for each place
// and a line for each engine, into dir, and returns the files.
func drawDepth(dir string, rs results, ps []place, depths []int) ([]string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	ps = mainPlaces(ps)
	var panels []*plot.Plot
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.XOffs = true, true, vg.Points(10)
	legend.Padding = vg.Points(5)
	legend.ThumbnailWidth = vg.Points(26)
	legend.TextStyle.Font.Size = vg.Points(11)
	known := map[string]bool{}
	low, high := decades(rs, ps, depths)
	for _, p := range ps {
		panel := plot.New()
		panel.Title.Text = panelTitle(p)
		panel.Title.TextStyle.Font.Size = vg.Points(12)
		panel.Title.Padding = vg.Points(8)
		panel.X.Label.Text = "depth: levels below the first caller"
		panel.Y.Label.Text = "time per level"
		for _, axis := range []*plot.Axis{&panel.X, &panel.Y} {
			axis.Scale = plot.LogScale{}
			axis.Label.TextStyle.Font.Size = vg.Points(11)
			axis.Label.Padding = vg.Points(4)
			axis.Tick.Label.Font.Size = vg.Points(10)
		}
		panel.X.Tick.Marker = depthTicks(depths)
		panel.Y.Tick.Marker = plot.TickerFunc(timeTicks)
		grid := plotter.NewGrid()
		grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xee}
		panel.Add(grid)
		for _, l := range lines() {
			pts := points(rs, p, l.name, depths, low, high)
			if len(pts.XYs) == 0 {
				continue
			}
			thumbs, err := addLine(panel, pts, l.name)
			if err != nil {
				return nil, err
			}
			if !known[l.name] {
				known[l.name] = true
				legend.Add(l.what, thumbs...)
			}
		}
		if f, ok := rs.of(floorOfLevel(p)); ok {
			line, err := addFloor(panel, f.median, depths)
			if err != nil {
				return nil, err
			}
			if !known["floor"] {
				known["floor"] = true
				legend.Add("floor: two round trips", line)
			}
		}
		panel.X.Min, panel.X.Max = float64(depths[0]), float64(depths[len(depths)-1])
		panel.Y.Min, panel.Y.Max = low, high
		panels = append(panels, panel)
	}
	delete(known, "floor")
	if len(known) == 0 {
		return nil, fmt.Errorf("chart: there is nothing to draw")
	}
	width := vg.Length(len(panels))*panelWidth + legendWidth
	picture := vgimg.NewWith(vgimg.UseWH(width, chartHeight), vgimg.UseDPI(dotsPerInch), vgimg.UseBackgroundColor(color.White))
	lay(draw.New(picture), panels, legend)
	vector := vgsvg.New(width, chartHeight)
	lay(draw.New(vector), panels, legend)

	png := filepath.Join(dir, "depth.png")
	if err := write(png, vgimg.PngCanvas{Canvas: picture}); err != nil {
		return nil, err
	}
	svg := filepath.Join(dir, "depth.svg")
	return []string{svg, png}, write(svg, vector)
}

func panelTitle(p place) string {
	if p == oneCore {
		return "one core, GOMAXPROCS=1: the threads sleep and are woken"
	}
	return "two cores, GOMAXPROCS=2: the threads may find each other awake"
}

// floorOfLevel picks what the two round trips of a level take at best: with the
// kernel where the threads sleep, with a word in memory where they are awake.
func floorOfLevel(p place) pick {
	trip := value(p, "call", "spin")
	if p == oneCore {
		trip = value(p, "call", "futex")
	}
	return plus(trip, trip)
}

// addFloor draws a line at one height.
func addFloor(p *plot.Plot, height float64, depths []int) (*plotter.Line, error) {
	line, err := plotter.NewLine(plotter.XYs{{X: float64(depths[0]), Y: height}, {X: float64(depths[len(depths)-1]), Y: height}})
	if err != nil {
		return nil, err
	}
	line.Color, line.Width = floorColor, vg.Points(1.2)
	line.Dashes = []vg.Length{vg.Points(5), vg.Points(4)}
	p.Add(line)
	return line, nil
}

var floorColor = color.RGBA{0x00, 0x00, 0x00, 0xff}

// decades returns the least and the greatest of the medians, rounded to
// powers of ten: all panels have the same axis.
func decades(rs results, ps []place, depths []int) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range ps {
		if f, ok := rs.of(floorOfLevel(p)); ok {
			low, high = min(low, f.median), max(high, f.median)
		}
		for _, l := range lines() {
			for _, d := range depths {
				if f, ok := rs.of(value(p, "level", l.name, d)); ok {
					low, high = min(low, f.median), max(high, f.median)
				}
			}
		}
	}
	return math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
}

// span is the medians of one line, with the way to the extremes.
type span struct {
	plotter.XYs
	plotter.YErrors
}

// points returns those of one line. Bars end where the axis does.
func points(rs results, p place, name string, depths []int, low, high float64) span {
	var s span
	for _, d := range depths {
		f, ok := rs.of(value(p, "level", name, d))
		if !ok {
			continue
		}
		s.XYs = append(s.XYs, plotter.XY{X: float64(d), Y: f.median})
		s.YErrors = append(s.YErrors, struct{ Low, High float64 }{f.median - max(f.min, low), min(f.max, high) - f.median})
	}
	return s
}

func addLine(p *plot.Plot, s span, name string) ([]plot.Thumbnailer, error) {
	line, marks, err := plotter.NewLinePoints(s.XYs)
	if err != nil {
		return nil, err
	}
	bars, err := plotter.NewYErrorBars(s)
	if err != nil {
		return nil, err
	}
	style := styles[name]
	line.Color, line.Width = style.color, vg.Points(1.6)
	marks.Color, marks.Shape, marks.Radius = style.color, style.mark, vg.Points(3)
	faint := style.color
	faint.A = 0x90
	bars.Color, bars.Width, bars.CapWidth = color.NRGBA(faint), vg.Points(0.8), vg.Points(4)
	p.Add(bars, line, marks)
	return []plot.Thumbnailer{line, marks}, nil
}

// lay puts the panels beside each other, and the legend to their right.
func lay(c draw.Canvas, panels []*plot.Plot, legend plot.Legend) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	right := c.Max.X - legendWidth
	tiles := draw.Tiles{
		Rows: 1, Cols: len(panels), PadX: vg.Points(14),
		PadTop: vg.Points(8), PadBottom: vg.Points(8), PadLeft: vg.Points(8), PadRight: vg.Points(4),
	}
	for i, t := range plot.Align([][]*plot.Plot{panels}, tiles, draw.Crop(c, 0, right-c.Max.X, 0, 0))[0] {
		panels[i].Draw(t)
	}
	legend.Draw(draw.Crop(c, right-c.Min.X, -vg.Points(6), 0, -vg.Points(34)))
	note := legend.TextStyle
	note.Font = font.From(note.Font, vg.Points(9))
	note.YAlign = draw.YBottom
	c.FillText(note, vg.Point{X: right + vg.Points(10), Y: c.Min.Y + vg.Points(44)},
		"One level: SyncToAsync, AsyncToSync,\nand back. Median of the rounds;\nbars from the least to the greatest.\nLower is better. The floor is what the\nmachine takes for two round trips of\ntwo threads: with a futex on one core,\nwith a word in memory on two.")
}

// depthTicks are at all depths, every other one labelled.
func depthTicks(depths []int) plot.ConstantTicks {
	var all plot.ConstantTicks
	for i, d := range depths {
		t := plot.Tick{Value: float64(d)}
		if i%2 == 0 {
			t.Label = fmt.Sprint(d)
		}
		all = append(all, t)
	}
	return all
}

// timeTicks are at decades, labelled with a unit, with small ones between.
func timeTicks(low, high float64) []plot.Tick {
	var all []plot.Tick
	for exp := math.Floor(math.Log10(low)); exp <= math.Ceil(math.Log10(high)); exp++ {
		decade := math.Pow(10, exp)
		label := fmt.Sprintf("%g ns", decade)
		switch {
		case exp >= 6:
			label = fmt.Sprintf("%g ms", decade/1e6)
		case exp >= 3:
			label = fmt.Sprintf("%g µs", decade/1e3)
		}
		all = append(all, plot.Tick{Value: decade, Label: label})
		for i := 2.0; i < 10; i++ {
			all = append(all, plot.Tick{Value: i * decade})
		}
	}
	return all
}

func write(file string, picture vg.CanvasWriterTo) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := picture.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
