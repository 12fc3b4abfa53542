package deadlock

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// childPatience bounds a process that should be told that it hangs, and is not.
// It is no part of any assertion.
const childPatience = time.Minute

// Processes that hang, where the runtime of Go says nothing, are told of: by a
// verdict, or by the error of the wait that would have closed the cycle.
func TestProcessesThatHang(t *testing.T) {
	exe := buildHang(t)
	for _, name := range []string{
		"rawchannel", "waitgroup", "mutex", "nested-raw", "slow",
		"wrong-ctx", "two-threads", "serve-none", "full-pool", "limiter", "self-wait", "group-member", "shutdown",
		"nested-async", "outer-ctx", "shutdown-goroutine", "pool-close", "serve-all", "open-and-idle", "tokens",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), childPatience)
			defer cancel()
			cmd := exec.CommandContext(ctx, exe, name)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			require.NoError(t, ctx.Err(), "nothing was told of the process: %s", &stderr)
			var exit *exec.ExitError
			require.True(t, errors.As(err, &exit), "%v: %s", err, &stderr)
			require.Equal(t, 3, exit.ExitCode(), stderr.String())
			golden(t, "hang."+name+".txt", settled(masked(stderr.String())))
		})
	}
}

// ofSync are frames of package sync, which are others in another version of Go.
var ofSync = regexp.MustCompile(`(?m)^  (?:internal/)?sync\..*\n.*\n`)

// settled returns a text without what another run or toolchain has otherwise.
func settled(text string) string {
	parts := strings.Split(ofSync.ReplaceAllString(text, ""), "\n\n")
	var at []int
	var stacks []string
	for i, p := range parts {
		switch lines := strings.Split(p, "\n"); {
		case lines[0] == "who waits for whom":
			slices.Sort(lines[1:])
			parts[i] = strings.Join(lines, "\n")
		case strings.HasPrefix(p, "goroutine N ["):
			at, stacks = append(at, i), append(stacks, p)
		}
	}
	slices.Sort(stacks) // they came in the order of their ids, as the waits did
	for i, p := range stacks {
		parts[at[i]] = p
	}
	return strings.Join(parts, "\n\n")
}

// buildHang builds testdata/hang.
func buildHang(t *testing.T) (exe string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a program")
	}
	out, err := exec.Command("go", "env", "CGO_ENABLED", "CC").Output()
	if err != nil {
		t.Skip("needs the go command:", err)
	}
	enabled, cc, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(string(out), "\r\n", "\n")), "\n")
	if enabled != "1" {
		t.Skip("needs cgo, which CGO_ENABLED turns off")
	}
	if words := strings.Fields(cc); len(words) == 0 {
		t.Skip("needs a C compiler")
	} else if _, err := exec.LookPath(words[0]); err != nil {
		t.Skip("needs a C compiler:", err)
	}
	exe = filepath.Join(t.TempDir(), "hang")
	if runtime.GOOS == "windows" {
		exe += ".exe"
	}
	build := exec.Command("go", "build", "-o", exe, "./"+filepath.ToSlash(filepath.Join("testdata", "hang")))
	out, err = build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exe
}
