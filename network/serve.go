package network

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Serve accepts connections from l until ctx ends or l fails. For each
// connection, a task of group calls handler. The ctx of handler is the group's.
// When handler has ended, in whatever way, the connection is closed. If the task
// does not begin, because the group was cancelled or cannot get it a place, the
// connection is closed as well.
//
// Serve returns the cause of ctx or the error of l, which matches
// [net.ErrClosed] if l was closed. It neither closes l nor waits for the
// handlers; the group's Wait waits for them. The error of a handler is an error
// of the group: it cancels the other handlers unless the group was made with
// [task.NoCancel]. If ctx is the ctx of the group, that also ends Serve.
//
// If the process has no file descriptors left, Serve tries again after a pause.
// A connection that its peer gives up before it is accepted is no failure.
// While the limit of the group is reached, Serve waits before it starts the
// next task. If ctx ends meanwhile, the connection that was accepted is closed.
//
// It panics if handler or group is nil, and as [task.Group.Go] does.
func Serve(ctx context.Context, l net.Listener, group *task.Group, handler func(ctx context.Context, c net.Conn) error) error {
	checkCtx(ctx, "Serve")
	checkConn(l == nil, "Serve")
	if group == nil || handler == nil {
		panic("network: Serve with a nil group or a nil handler")
	}
	for {
		c, err := Accept(ctx, l)
		switch {
		case err == nil:
			handle(ctx, c, group, handler) // if ctx has ended, the next Accept says so
		case isOne(err, abortedConns):
		case isOne(err, exhausted):
			if err := task.Sleep(ctx, exhaustedPause); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// exhaustedPause is EasyNetwork's value.
const exhaustedPause = 100 * time.Millisecond

var (
	exhausted    = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}
	abortedConns = []error{syscall.ECONNABORTED, syscall.EPROTO}
)

func isOne(err error, of []error) bool {
	for _, e := range of {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// handle starts the task for c, and waits for its place until ctx ends. If handler does
// not begin, handle closes c.
func handle(ctx context.Context, c net.Conn, group *task.Group, handler func(context.Context, net.Conn) error) {
	var closed atomic.Bool
	drop := func() {
		if !closed.Swap(true) {
			_ = c.Close()
		}
	}
	var t *core.Task // nil as long as there is none
	started, begun := false, false
	defer func() {
		// Go has panicked, or a Goexit has taken its wait with it, or it has got no
		// place.
		if !started || t == nil {
			drop()
		}
	}()
	group.Go(func(ctx context.Context) error {
		begun = true
		defer c.Close()
		return handler(ctx, c)
	}, func(o *core.Options) {
		o.Into, o.Until = &t, ctx
		o.OnEnd = func() {
			if !begun {
				// Not here: if Close panics, that would end whoever cancels the task.
				go dropUnheard(context.Background(), "network.Serve", drop)
			}
		}
	})
	started = true
}
