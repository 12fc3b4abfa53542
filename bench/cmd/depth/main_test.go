package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The command runs itself for its children: here that is the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestQuickRunMeasuresEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "charts")
	var out, trouble bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-quick", "-python", "-out", dir}, &out, &trouble), &trouble)

	for _, heading := range []string{"call ", "engine ", "loop ", "    promise ", "chart: " + filepath.Join(dir, "depth.svg")} {
		assert.Contains(t, out.String(), "\n"+heading)
	}
	for _, row := range []string{"plain call", "library, to a thread", "locked goroutine behind a channel"} {
		assert.Contains(t, out.String(), "\n"+row)
	}
	for _, e := range engines {
		assert.Regexp(t, `\n`+e.name+` +16 .* [µn]s `, out.String())
	}
	assert.NotContains(t, out.String(), "was not measured")
	assert.NotContains(t, out.String(), "NaN")
	assert.FileExists(t, filepath.Join(dir, "depth.png"))
}

func TestQuickRunOfLoopsAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "charts")
	var out, trouble bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-quick", "-loops", "-python", "-out", dir}, &out, &trouble), &trouble)

	l, err := newLab(t.Context(), config{quick: true, loops: true, python: true})
	require.NoError(t, err)
	defer l.close()
	for _, row := range loopRows {
		if len(l.snakes) > 0 || !strings.HasPrefix(row.what, "Python") {
			assert.Contains(t, out.String(), row.what)
		}
	}
	for _, p := range loopPromises(sizes(true)) {
		assert.Contains(t, out.String(), p.what)
	}
	assert.NotContains(t, out.String(), "was not measured")
	assert.NotContains(t, out.String(), "NaN")
	assert.NotContains(t, out.String(), "plain call")
	assert.NoDirExists(t, dir)
}

func TestWithoutPythonItSaysHowToGetIt(t *testing.T) {
	for _, python := range []bool{false, true} {
		l, err := newLab(t.Context(), config{quick: true, python: python})
		require.NoError(t, err)
		defer l.close()
		if len(l.snakes) < len(snakes) {
			assert.Contains(t, strings.Join(l.notes, "\n"), "apt-get install python3-")
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"an unknown flag":    {"-deep"},
		"too few rounds":     {"-rounds", "4"},
		"no time":            {"-time", "0s"},
		"an argument":        {"everything"},
		"a broken child":     {childCommand, "-round", "x"},
		"no number of them":  {"-rounds", "many"},
		"an output of sorts": {"-out"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, trouble bytes.Buffer
			assert.Equal(t, 2, run(t.Context(), args, &out, &trouble))
			assert.NotEmpty(t, trouble.String())
			assert.Empty(t, out.String())
		})
	}
}

func TestHelpTellsTheFlags(t *testing.T) {
	var out, trouble bytes.Buffer
	assert.Equal(t, 0, run(t.Context(), []string{"-h"}, &out, &trouble))
	assert.Contains(t, trouble.String(), "-python")
}

func TestChildThatFailsIsReported(t *testing.T) {
	l := &lab{config: config{quick: true, each: 1}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := l.child(ctx, round{}, oneCore, 0)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, oneCore.title)
}

func TestReadRefusesWhatIsNoFigure(t *testing.T) {
	var got []reading
	keep := func(x reading) { got = append(got, x) }
	require.NoError(t, read(strings.NewReader(`{"name":"call/hop","value":1.5}`+"\n"), keep))
	assert.Equal(t, []reading{{"call/hop", 1.5}}, got)
	assert.ErrorContains(t, read(strings.NewReader("panic: no\n"), keep), "panic: no")
}
