package browser

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/deadlock"
)

var rewrite = flag.Bool("rewrite", false, "make the picture of the documentation anew")

// patience bounds a hang; it is no part of any assertion.
const patience = 2 * time.Minute

// browse opens the page of g in a browser of the given size, which is gone when
// the test is over. What the page complains about fails the test.
func browse(t *testing.T, g *garden, width, height int, opts ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	require.NotEmpty(t, path, "this needs Chromium: apt-get install chromium, or .ci/run, which does so")
	all := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(width, height),
		chromedp.Flag("force-prefers-reduced-motion", true)) // the driver clicks where a thing is, not where it is going to
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(all, opts...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {})) // of events that the driver does not know
	t.Cleanup(cancel)
	chromedp.ListenTarget(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("an exception on the page: %s", e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				t.Errorf("the page complains: %s", e.Args[0].Value)
			}
		}
	})
	run(t, ctx, chromedp.Navigate(g.url), chromedp.WaitVisible(`#h-threads`), chromedp.WaitVisible(`#state[data-state=live]`))
	return ctx
}

func run(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	require.NoError(t, chromedp.Run(ctx, actions...))
}

// eval returns what an expression comes to on the page.
func eval[T any](t *testing.T, ctx context.Context, expr string) (v T) {
	t.Helper()
	run(t, ctx, chromedp.Evaluate(expr, &v))
	return v
}

// until waits until an expression holds on the page.
func until(t *testing.T, ctx context.Context, expr string) {
	t.Helper()
	run(t, ctx, chromedp.Poll(expr, nil, chromedp.WithPollingTimeout(patience)))
}

// arrives waits until an expression holds on the page that is on its way: until then
// there may be none that could be asked.
func arrives(t *testing.T, ctx context.Context, expr string) {
	t.Helper()
	for range 1000 {
		var there bool
		if err := chromedp.Run(ctx, chromedp.Evaluate(expr, &there)); err == nil && there {
			return
		}
		time.Sleep(10 * time.Millisecond) // a bounded poll
	}
	require.Fail(t, "the page does not come to it", expr)
}

// One opens the page of a program that hangs, sees the cycle, clicks on who is in
// it, and is at the stack that hangs; then the deadlock is dissolved, and the page
// says so by itself.
func TestDeadlockIsSeen(t *testing.T) {
	g := plant(t)
	require.Equal(t, deadlock.Probable, (<-g.verdict).Kind)
	ctx := browse(t, g, 1180, 900)

	run(t, ctx, chromedp.WaitVisible(`#cycle`))
	require.Contains(t, eval[string](t, ctx, `document.querySelector("#cycle").textContent`), "ledger")
	require.Equal(t, 2.0, eval[float64](t, ctx, `document.querySelectorAll("svg .box.cycle").length`))
	require.Equal(t, 2.0, eval[float64](t, ctx, `document.querySelectorAll("svg .arrow.cycle").length`))
	require.Equal(t, "rgb(179, 21, 28)", eval[string](t, ctx, `getComputedStyle(document.querySelector("svg .arrow.cycle path")).stroke`), "the style is applied")

	// From the picture to the thread, and from there to its stack.
	run(t, ctx, chromedp.Click(`svg .box.cycle:not(.goroutine) rect`))
	until(t, ctx, `document.activeElement.matches("article.thread.stuck")`)
	require.Contains(t, eval[string](t, ctx, `document.activeElement.textContent`), "post letter")
	run(t, ctx, chromedp.Click(`article.thread.stuck [data-stack]`))
	until(t, ctx, `document.activeElement.matches(".frames")`)
	require.Contains(t, eval[string](t, ctx, `document.activeElement.textContent`), "browser.postLetter")
	require.True(t, eval[bool](t, ctx, `document.activeElement.checkVisibility()`))

	// From the verdict to what to do.
	require.Contains(t, eval[string](t, ctx, `document.querySelector(".verdict.probable summary").textContent`), "probable deadlock: thread ledger")
	run(t, ctx, chromedp.Click(`.verdict.probable summary`), chromedp.WaitVisible(`.verdict.probable a`))
	require.Equal(t, g.url+"docs/raw-wait", eval[string](t, ctx, `document.querySelector(".verdict.probable a").href`))

	g.free()
	until(t, ctx, `!document.querySelector("#cycle") && document.querySelector(".verdict.moved")`)
	require.True(t, eval[bool](t, ctx, `document.querySelector(".verdict.moved").open`), "what was open has stayed so")
	run(t, ctx, chromedp.Click(`.verdict.moved a`), chromedp.WaitVisible(`.doc h1`))
	require.Contains(t, eval[string](t, ctx, `document.body.textContent`), "The cure.")
}

// Ages grow without anything being sent anew, and not while the page is held.
func TestAgesGrow(t *testing.T) {
	g := plant(t)
	ctx := browse(t, g, 1180, 900)
	run(t, ctx, chromedp.Evaluate(`window.mine = document.querySelector("article.thread.stuck"); window.old = mine.querySelector(".age").textContent`, nil))
	until(t, ctx, `mine.isConnected && mine.querySelector(".age").textContent !== old
		|| !mine.isConnected && (mine = document.querySelector("article.thread.stuck"), old = mine.querySelector(".age").textContent, false)`)
	run(t, ctx, chromedp.KeyEvent("p"))
	require.Equal(t, "true", eval[string](t, ctx, `document.querySelector("#hold").getAttribute("aria-pressed")`))
	g.free()
	for v := range g.verdict {
		if v.Kind == deadlock.Retracted {
			break
		}
	}
	require.True(t, eval[bool](t, ctx, `!!document.querySelector("#cycle")`), "it is held")
	run(t, ctx, chromedp.KeyEvent("p"))
	until(t, ctx, `!document.querySelector("#cycle")`)
}

// Everything can be done with keys.
func TestKeys(t *testing.T) {
	g := plant(t)
	ctx := browse(t, g, 1180, 900)
	run(t, ctx, chromedp.KeyEvent("j"))
	require.Contains(t, eval[string](t, ctx, `document.querySelector(".here h3").textContent`), "ledger", "what is stuck comes first")
	run(t, ctx, chromedp.KeyEvent("j"))
	require.NotContains(t, eval[string](t, ctx, `document.querySelector(".here h3").textContent`), "ledger")
	run(t, ctx, chromedp.KeyEvent("k"), chromedp.KeyEvent("s"))
	until(t, ctx, `document.activeElement.matches(".frames")`)
	require.Contains(t, eval[string](t, ctx, `document.activeElement.textContent`), "postLetter")

	run(t, ctx, chromedp.KeyEvent("?"), chromedp.WaitVisible(`#help`), chromedp.KeyEvent(kb.Escape), chromedp.WaitNotVisible(`#help`))

	run(t, ctx, chromedp.KeyEvent("/"))
	until(t, ctx, `document.activeElement.id === "q"`)
	// The driver types the character of a key that the page has kept from being one.
	run(t, ctx, chromedp.Evaluate(`document.activeElement.select()`, nil), chromedp.KeyEvent("PRESS"+kb.Enter))
	arrives(t, ctx, `location.search === "?q=PRESS" && document.readyState === "complete" && document.querySelector("article.thread") !== null`)
	require.Equal(t, []string{"printing press"}, eval[[]string](t, ctx, `[...document.querySelectorAll("article.thread h3")].map((h) => h.firstChild.textContent.trim())`))

	// With Tab alone one comes to the boxes of the picture, and sees where one is.
	run(t, ctx, chromedp.Navigate(g.url), chromedp.WaitVisible(`#cycle`), chromedp.WaitVisible(`#state[data-state=live]`))
	found := false
	for range 40 {
		run(t, ctx, chromedp.KeyEvent(kb.Tab))
		if eval[bool](t, ctx, `document.activeElement.matches("svg .box.cycle:focus-visible")`) {
			found = true
			break
		}
	}
	require.True(t, found, "no Tab leads to the picture")
	run(t, ctx, chromedp.KeyEvent(kb.Enter))
	until(t, ctx, `location.hash !== ""`)
}

// On a phone nothing is wider than the screen but what scrolls by itself.
func TestPhone(t *testing.T) {
	g := plant(t)
	ctx := browse(t, g, 500, 800)
	run(t, ctx, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	require.Equal(t, 360.0, eval[float64](t, ctx, `document.documentElement.scrollWidth`))
	run(t, ctx, chromedp.Navigate(g.url+"docs/full-pool"), chromedp.WaitVisible(`.doc h1`))
	require.Equal(t, 360.0, eval[float64](t, ctx, `document.documentElement.scrollWidth`))
}

// contrasts returns the texts of the page that stand out too little from what is
// behind them: less than 4.5 to 1, as WCAG asks for at level AA.
const contrasts = `(() => {
	const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return {r: m[0], g: m[1], b: m[2], a: m[3] === undefined ? 1 : m[3]}; };
	const light = (c) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
		return 0.2126 * f(c.r) + 0.7152 * f(c.g) + 0.0722 * f(c.b); };
	const over = (top, under, a) => ({r: top.r * a + under.r * (1 - a), g: top.g * a + under.g * (1 - a), b: top.b * a + under.b * (1 - a)});
	const bad = [];
	let checked = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; n = walk.nextNode();) {
		const e = n.parentElement;
		if (!n.textContent.trim() || !e.checkVisibility() || e.closest("script, title, svg > defs, .skip")) continue;
		let behind = null, opacity = 1;
		for (let x = e; x; x = x.parentElement) {
			opacity *= parseFloat(getComputedStyle(x).opacity);
			const rect = x.matches("a.box") ? x.querySelector("rect") : null;
			const c = parse(rect ? getComputedStyle(rect).fill : getComputedStyle(x).backgroundColor);
			if (c.a === 1 && !behind) behind = c;
		}
		const style = getComputedStyle(e);
		const text = over(parse(e.closest("svg") ? style.fill : style.color), behind, opacity);
		const [hi, lo] = [light(text), light(behind)].sort((a, b) => b - a);
		checked++;
		if ((hi + 0.05) / (lo + 0.05) < 4.5) bad.push(e.tagName + "." + (e.className.baseVal ?? e.className) + ": " + n.textContent.trim().slice(0, 30) + " " + ((hi + 0.05) / (lo + 0.05)).toFixed(2));
	}
	return checked > 50 ? bad : ["only " + checked + " texts"];
})()`

// Text can be read, in the light and in the dark.
func TestContrast(t *testing.T) {
	g := plant(t)
	<-g.verdict
	ctx := browse(t, g, 1180, 900)
	papers := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		run(t, ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.Navigate(g.url), chromedp.WaitVisible(`#cycle`), chromedp.WaitVisible(`.verdict`),
			chromedp.Evaluate(`document.querySelectorAll("details").forEach((d) => d.open = true)`, nil))
		require.Empty(t, eval[[]string](t, ctx, contrasts), scheme)
		papers[eval[string](t, ctx, `getComputedStyle(document.documentElement).backgroundColor`)] = true
	}
	require.Len(t, papers, 2, "the dark is another than the light")
}

// What can be pressed or read has a name, ids are unique, and headings are in order.
func TestStructure(t *testing.T) {
	g := plant(t)
	<-g.verdict
	ctx := browse(t, g, 1180, 900)
	run(t, ctx, chromedp.WaitVisible(`#cycle`))
	require.Empty(t, eval[[]string](t, ctx, `(() => {
		const bad = [], seen = new Set();
		for (const e of document.querySelectorAll("[id]")) { if (seen.has(e.id)) bad.push("id " + e.id); seen.add(e.id); }
		for (const e of document.querySelectorAll("a, button, summary")) if (!e.textContent.trim()) bad.push("no name: " + e.outerHTML.slice(0, 80));
		for (const e of document.querySelectorAll("input")) if (!e.labels.length) bad.push("no label: " + e.outerHTML);
		for (const e of document.querySelectorAll("[role=img], [role=group]")) if (!e.getAttribute("aria-label")) bad.push("no label: " + e.outerHTML.slice(0, 80));
		for (const e of document.querySelectorAll("[aria-labelledby]")) if (!document.getElementById(e.getAttribute("aria-labelledby"))) bad.push("labelled by nothing: " + e.outerHTML.slice(0, 80));
		let level = 0;
		for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
			if (h.closest("dialog")) continue;
			const n = +h.tagName[1];
			if (n > level + 1) bad.push("heading " + h.textContent);
			level = n;
		}
		return bad;
	})()`))
}

// The page is whole without its script.
func TestWithoutScript(t *testing.T) {
	g := plant(t)
	<-g.verdict
	ctx := browse(t, g, 1180, 900)
	run(t, ctx, emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(g.url+"?"), chromedp.WaitVisible(`#cycle`))
	var text string
	run(t, ctx, chromedp.Text("body", &text))
	for _, want := range []string{"ledger", "post letter", "probable deadlock", "printing press", "as of "} {
		require.Contains(t, text, want)
	}
}

// TestScreenshot makes the picture of the documentation, with -trimpath and
// -rewrite, and checks that there is one of a decent size.
func TestScreenshot(t *testing.T) {
	const most = 150 << 10 // bytes: it is in the repository
	file := filepath.Join("..", "..", "docs", "debugpage.png")
	if *rewrite {
		g := plant(t)
		<-g.verdict
		ctx := browse(t, g, 1180, 760)
		var png []byte
		run(t, ctx, chromedp.WaitVisible(`#cycle`), chromedp.WaitVisible(`.verdict`))
		require.False(t, eval[bool](t, ctx, `/(^|\s)\/(?!reports)\w/.test(document.querySelector("#live").innerText)`),
			"the paths of this machine are nobody's business: run it with -trimpath")
		run(t, ctx, chromedp.EmulateViewport(1180, 760), chromedp.CaptureScreenshot(&png))
		require.NoError(t, os.WriteFile(file, png, 0o666))
	}
	png, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(png), "\x89PNG"))
	require.Less(t, len(png), most, fmt.Sprintf("go test -trimpath -run TestScreenshot -rewrite makes %s anew", file))
}
