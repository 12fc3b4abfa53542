package asyncsync_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
)

// A helper is a process that answers each line with the same, and is to be killed
// when its parent dies. To the kernel its parent is the thread that starts it.
type helper struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// startHelper starts a helper; the test's own process is run with echo set.
func startHelper(context.Context) (*helper, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestPdeathsig$")
	cmd.Env = append(os.Environ(), "ASYNCSYNC_TEST_ECHO=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h := &helper{cmd, in, bufio.NewReader(out)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return h, h.lives() // it is past the moment at which it asks for the signal
}

// lives asks the helper for an answer.
func (h *helper) lives() error {
	if _, err := fmt.Fprintln(h.in, "ping"); err != nil {
		return err
	}
	_, err := h.out.ReadString('\n')
	return err
}

// killed waits for its end and reports whether it was killed.
func (h *helper) killed() bool {
	var exit *exec.ExitError
	if !errors.As(h.cmd.Wait(), &exit) {
		return false
	}
	return exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// A process that is started with Pdeathsig on a thread of a pool dies when the
// thread is given up. On one that stays it lives: the default thread, or that of
// a Handle for as long as it is open.
func TestPdeathsig(t *testing.T) {
	if os.Getenv("ASYNCSYNC_TEST_ECHO") != "" {
		io.Copy(os.Stdout, os.Stdin)
		os.Exit(0)
	}
	guard(t)
	newPooled := func() (context.Context, func()) {
		pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
		return ctx, func() {
			require.NoError(t, tsc.Close())
			require.NoError(t, pool.Close())
		}
	}

	pooled, end := newPooled()
	h, err := asyncsync.ToThread(pooled, startHelper)
	require.NoError(t, err)
	require.NoError(t, h.lives())
	end()
	require.True(t, h.killed())

	pooled, end = newPooled()
	require.NoError(t, to(pooled, func(ctx context.Context) (err error) {
		h, err = asyncsync.ToThread(asyncsync.Detach(ctx), startHelper) // the default thread
		return err
	}))
	end()
	require.NoError(t, h.lives())
	require.NoError(t, h.cmd.Process.Kill())
	require.True(t, h.killed())

	own, err := asyncsync.Open(context.Background(), startHelper, func(h *helper) error {
		err := h.cmd.Process.Kill()
		h.cmd.Wait()
		return err
	})
	require.NoError(t, err)
	require.NoError(t, own.Do(context.Background(), func(_ context.Context, h *helper) error { return h.lives() }))
	require.NoError(t, own.Close())
}
