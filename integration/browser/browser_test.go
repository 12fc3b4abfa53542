package browser

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// patience bounds a hang; it is no part of any assertion.
const patience = time.Minute

// browse starts a browser, which is gone when the test is over.
func browse(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	require.NotEmpty(t, path, "this needs Chromium: apt-get install chromium, or .ci/run, which does so")
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1180, 900))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	return ctx
}

func TestLook(t *testing.T) {
	g := plant(t)
	<-g.verdict
	ctx := browse(t)
	var png []byte
	require.NoError(t, chromedp.Run(ctx,
		chromedp.Navigate(g.url),
		chromedp.WaitVisible(`#cycle`),
		chromedp.FullScreenshot(&png, 100),
	))
	require.NoError(t, os.WriteFile("/tmp/page.png", png, 0o644))
	require.NoError(t, chromedp.Run(ctx,
		chromedp.EmulateViewport(390, 800, chromedp.EmulateMobile),
		chromedp.FullScreenshot(&png, 100),
	))
	require.NoError(t, os.WriteFile("/tmp/phone.png", png, 0o644))
}
