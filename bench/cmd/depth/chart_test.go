package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// everything returns a round with every reading of a full run, in the order of
// magnitude of real ones.
func everything(s scale) round {
	r := round{}
	base := map[string]map[string]float64{
		oneCore.name:  {"default": 12_000, "unpinned": 90, "samethread": 160, "fresh": 12_500, "asgiref": 95_000, "anyio": 80_000},
		twoCores.name: {"default": 900, "unpinned": 95, "samethread": 165, "fresh": 80_000, "asgiref": 150_000, "anyio": 120_000},
	}
	for at, levels := range base {
		for name, ns := range levels {
			for i, d := range s.depths {
				if name == "asgiref" && d > 128 || name == "anyio" && d > 32 {
					continue
				}
				r[fmt.Sprintf("%s:level/%s/%d", at, name, d)] = ns * (1 + 0.4*math.Pow(0.6, float64(i)))
				for _, m := range []string{"allocated", "heap", "stack"} {
					r[fmt.Sprintf("%s:%s/%s/%d", at, m, name, d)] = 700
				}
				r[fmt.Sprintf("%s:goroutines/%s/%d", at, name, d)] = 0
			}
		}
		for i, name := range []string{
			"call/plain", "call/inline", "call/unpinned", "call/goroutine", "call/hop", "call/nospin", "call/channel",
			"call/spin", "call/futex", "call/asgiref", "call/anyio", "context/asgiref",
			"burners/learned", "burners/off", "burners/work-learned", "burners/work-off",
			"many/pipelined", "many/callers", "panic/panicked", "panic/returned",
			"context/unused", "context/unused-allocs", "context/request", "context/call",
			"crowd/request", "crowd/calls", "crowd/threads", "local/get",
		} {
			r[at+":"+name] = float64(i + 1)
		}
	}
	for _, p := range []place{oneCoreTwoProcs, twoCoresOneProc} {
		r[p.name+":spinning/learned"], r[p.name+":spinning/off"] = 9, 10
	}
	return r
}

func TestChartIsDrawn(t *testing.T) {
	s := sizes(false)
	rs := results{everything(s), everything(s)}
	for k := range rs[1] {
		rs[1][k] *= 1.6
	}
	dir := t.TempDir()
	if kept := os.Getenv("DEPTH_CHART"); kept != "" { // to look at it
		dir = kept
	}
	files, err := drawDepth(dir, rs, []place{oneCore, twoCores, oneCoreTwoProcs}, s.depths)
	require.NoError(t, err)
	require.Len(t, files, 2)

	vector, err := os.ReadFile(files[0])
	require.NoError(t, err)
	for d := xml.NewDecoder(bytes.NewReader(vector)); ; {
		_, err := d.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	for _, text := range []string{"time per level", "two cores", "1024", "10 µs", "Python: asgiref", "this module, SameThread", "floor: two round trips"} {
		assert.Contains(t, string(vector), text)
	}

	f, err := os.Open(files[1])
	require.NoError(t, err)
	defer f.Close()
	picture, err := png.Decode(f)
	require.NoError(t, err)
	assert.Greater(t, picture.Bounds().Dx(), 1000)
	found := map[color.RGBA]int{}
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			found[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
		}
	}
	for name, style := range styles {
		assert.Greater(t, found[style.color], 50, "nothing in the colour of %s", name)
	}
}

func TestChartOfNothing(t *testing.T) {
	_, err := drawDepth(t.TempDir(), results{{}}, []place{oneCore}, powers(16))
	assert.ErrorContains(t, err, "nothing to draw")
}

func TestEveryLineHasAStyle(t *testing.T) {
	for _, l := range lines() {
		assert.Contains(t, styles, l.name)
	}
}

func TestTimeTicks(t *testing.T) {
	var labels []string
	for _, tick := range timeTicks(100, 1e6) {
		if tick.Label != "" {
			labels = append(labels, tick.Label)
		}
	}
	assert.Equal(t, []string{"100 ns", "1 µs", "10 µs", "100 µs", "1 ms"}, labels)
}
