package network_test

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
)

// After the whole suite no goroutine is left but the default thread of the process.
func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, 1, func() { core.DefaultPool.Close() }))
}

// byAll runs a test as each kind of caller. meanwhile runs a function while the caller
// waits, on its thread or its loop, if it has one: that a thread serves, and that a loop
// goes on.
func byAll(t *testing.T, test func(t *testing.T, ctx context.Context, meanwhile func(func()))) {
	t.Helper()
	libkit.OnEach(t, func(t *testing.T, ctx context.Context, c libkit.Caller) error {
		beside := c.Beside(ctx)
		test(t, ctx, func(then func()) { beside(ctx, func(context.Context) { then() }) })
		return nil
	})
}

// connected returns both ends of a connection over the loopback.
func connected(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l := listening(t)
	a, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	b, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

func listening(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A counted connection tells when it is closed.
type counted struct {
	net.Conn
	open *atomic.Int32
	once atomic.Bool
}

func (c *counted) Close() error {
	if c.once.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// pipe returns a connection that counts in open.
func pipe(open *atomic.Int32) net.Conn {
	a, b := net.Pipe()
	_ = b.Close()
	open.Add(1)
	return &counted{Conn: a, open: open}
}

var noCtx context.Context
