// Package lostclose has contexts and handles that are not closed.
package lostclose

import (
	"context"
	"errors"
	"testing"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

type db struct{}

func open(context.Context) (*db, error)      { return new(db), nil }
func run(context.Context) (int, error)       { return 0, nil }
func keep(*asyncsync.ThreadSensitiveContext) {}
func get(context.Context, *db) (int, error)  { return 0, nil }
func begin() error                           { return errors.New("no") }

func dropped(ctx context.Context) {
	ctx, _ = asyncsync.NewThreadSensitiveContext(ctx) // want `the context that asyncsync.NewThreadSensitiveContext returns is dropped, and never closed`
	_, _ = asyncsync.ToThread(ctx, run)
	_, _ = asyncsync.Open(ctx, open, nil)                 // want `the handle that asyncsync.Open returns is dropped`
	asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{}) // want `the pool that asyncsync.NewThreadPool returns is dropped`
}

func never(ctx context.Context) {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx) // want `the context tsc is never closed`
	_, _ = asyncsync.ToThread(ctx, run, asyncsync.On(tsc))
	_ = tsc.Stats()
}

// The ctx gets about: to close it here would be too early.
func about(ctx context.Context) context.Context {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx) // want `the context tsc is never closed`
	_ = tsc.Stats()
	return ctx
}

func pool(ctx context.Context) {
	p := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{}) // want `the pool p is never closed`
	_ = asyncsync.WithThreadSensitiveContext(ctx, func(context.Context) error { return nil }, asyncsync.WithPool(p))
}

func executor(done chan struct{}) {
	e := asyncsync.NewCurrentThreadExecutor() // it may be left to the collector
	_ = e.RunUntil(done)
}

func handle(ctx context.Context) (int, error) {
	h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is never closed`
	if err != nil {
		return 0, err
	}
	return asyncsync.Get(ctx, h, get)
}

func early(ctx context.Context) error {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx) // want `the context tsc is not closed on every path: see the return in line 62`
	if err := begin(); err != nil {
		return err
	}
	defer tsc.Close()
	_, err := asyncsync.ToThread(ctx, run)
	return err
}

func earlyHandle(ctx context.Context) error {
	h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path: see the return in line 75`
	if err != nil {
		return err // there is none
	}
	if err = begin(); err != nil {
		return err
	}
	return h.Close()
}

func falls(ctx context.Context, ok bool) {
	_, tsc := asyncsync.NewThreadSensitiveContext(ctx) // want `not closed on every path`
	if ok {
		tsc.Close()
	}
}

// These are closed.
func deferred(ctx context.Context) error {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(ctx)
	defer tsc.Close()
	h, err := asyncsync.Open(ctx, open, nil)
	if err != nil {
		return err
	}
	defer h.Close()
	p := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	defer func() { _ = p.Shutdown(ctx) }()
	if err := begin(); err != nil {
		return err
	}
	return h.Do(ctx, func(context.Context, *db) error { return nil })
}

func joined(ctx context.Context) error {
	call, tsc := asyncsync.NewThreadSensitiveContext(ctx)
	_, err := asyncsync.ToThread(call, run)
	return errors.Join(err, tsc.Shutdown(ctx))
}

func equal(ctx context.Context) (n int, err error) {
	h, err := asyncsync.Open(ctx, open, nil)
	if err == nil {
		n, err = asyncsync.Get(ctx, h, get)
		err = errors.Join(err, h.Close())
	}
	return n, err
}

func fails(ctx context.Context) {
	_, tsc := asyncsync.NewThreadSensitiveContext(ctx)
	if begin() != nil {
		panic("no return")
	}
	_ = tsc.Close()
}

// These are somebody else's to close.
type holder struct {
	tsc *asyncsync.ThreadSensitiveContext
	h   *asyncsync.Handle[*db]
}

var global *asyncsync.ThreadPool

func given(ctx context.Context, to *holder, t *testing.T) (*asyncsync.Handle[*db], error) {
	_, a := asyncsync.NewThreadSensitiveContext(ctx)
	keep(a)
	_, b := asyncsync.NewThreadSensitiveContext(ctx)
	to.tsc = b
	_, c := asyncsync.NewThreadSensitiveContext(ctx)
	t.Cleanup(func() { c.Close() })
	_, to.tsc = asyncsync.NewThreadSensitiveContext(ctx)
	var err error
	to.h, err = asyncsync.Open(ctx, open, nil)
	if err != nil {
		return nil, err
	}
	global = asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	return asyncsync.Open(ctx, open, nil)
}

func result(ctx context.Context) (h *asyncsync.Handle[*db], err error) {
	h, err = asyncsync.Open(ctx, open, nil)
	return
}

func outer(ctx context.Context) error {
	var h *asyncsync.Handle[*db]
	t := task.Go(ctx, func(ctx context.Context) (_ int, err error) {
		h, err = asyncsync.Open(ctx, open, nil)
		return 0, err
	})
	if _, err := t.Wait(ctx); err != nil {
		return err
	}
	return h.Close()
}

// An error is looked for in many ways.
func ways(ctx context.Context, way int) error {
	switch way {
	case 0:
		h, err := asyncsync.Open(ctx, open, nil)
		if nil != err {
			return err
		}
		return h.Close()
	case 1:
		h, err := asyncsync.Open(ctx, open, nil)
		if !(err == nil) {
			return err
		}
		return h.Close()
	case 2:
		h, err := asyncsync.Open(ctx, open, nil)
		if h == nil {
			return err
		}
		return h.Close()
	case 3:
		h, err := asyncsync.Open(ctx, open, nil)
		switch err {
		case nil:
			return h.Close()
		case context.Canceled:
			return nil
		default:
			return err
		}
	case 4:
		h, err := asyncsync.Open(ctx, open, nil)
		switch {
		case errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return err
		}
		return h.Close()
	case 5:
		h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path: see the return in line 212`
		if errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return err
		}
		return h.Close()
	case 6:
		h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path: see the return in line 219`
		switch err {
		case nil:
			return nil
		}
		return h.Close()
	}
	return nil
}

func silenced(ctx context.Context) {
	_, tsc := asyncsync.NewThreadSensitiveContext(ctx) //asyncsync:ignore lostclose the process ends
	_ = tsc.Stats()
}

// The error by another name.
func renamed(ctx context.Context, way int) error {
	switch way {
	case 0:
		h, err := asyncsync.Open(ctx, open, nil)
		if err := err; err != nil {
			return err
		}
		return h.Close()
	case 1:
		h, err := asyncsync.Open(ctx, open, nil)
		failed := err
		if failed != nil {
			return failed
		}
		return h.Close()
	case 2:
		h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path`
		failed := err
		failed = ctx.Err()
		if failed != nil {
			return failed
		}
		return h.Close()
	case 3:
		h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path`
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		return h.Close()
	}
	return nil
}

// Each path has an error of its own, whichever branch comes first.
func branches(ctx context.Context, c bool, other func() error) error {
	h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path`
	if c {
		println("c")
	} else {
		err = other()
	}
	if err != nil {
		return err
	}
	return h.Close()
}

func swapped(ctx context.Context, c bool, other func() error) error {
	h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path`
	if c {
		err = other()
	} else {
		println("c")
	}
	if err != nil {
		return err
	}
	return h.Close()
}

func wrap(err error) error  { return err }
func failed(err error) bool { return err != nil }

// What became of the error is not followed: nothing is told of these.
func obscure(ctx context.Context, way int, err0 error) error {
	switch way {
	case 0:
		h, err := asyncsync.Open(ctx, open, nil)
		err = wrap(err)
		if err != nil {
			return err
		}
		return h.Close()
	case 1:
		h, err := asyncsync.Open(ctx, open, nil)
		err = errors.Join(err0, err)
		if err != nil {
			return err
		}
		return h.Close()
	case 2:
		h, err := asyncsync.Open(ctx, open, nil)
		ok := err == nil
		if !ok {
			return errors.New("no")
		}
		return h.Close()
	case 3:
		h, err := asyncsync.Open(ctx, open, nil)
		if failed(err) {
			return err
		}
		return h.Close()
	case 4:
		h, err := asyncsync.Open(ctx, open, nil)
		if way > 3 && failed(err) {
			return err
		}
		return h.Close()
	case 5:
		h, err := asyncsync.Open(ctx, open, nil)
		var ok = h != nil
		if !ok {
			return err
		}
		return h.Close()
	case 6:
		h, err := asyncsync.Open(ctx, open, nil)
		switch err.(type) {
		case nil:
			return h.Close()
		default:
			return err
		}
	case 7:
		h, err := asyncsync.Open(ctx, open, nil)
		switch failed(err) {
		case true:
			return err
		}
		return h.Close()
	case 8:
		h, err := asyncsync.Open(ctx, open, nil)
		switch e := err.(type) {
		case interface{ Timeout() bool }:
			return e.(error)
		}
		if err != nil {
			return err
		}
		return h.Close()
	}
	return nil
}

// These are followed.
func combined(ctx context.Context, way int) error {
	switch way {
	case 0:
		h, err := asyncsync.Open(ctx, open, nil)
		if err != nil && way == 0 {
			return err
		}
		if way > 0 && err != nil || err != nil {
			return err
		}
		return h.Close()
	case 1:
		h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path`
		if err != nil || way == 1 {
			return err
		}
		return h.Close()
	case 2:
		h, err := asyncsync.Open(ctx, open, nil)
		if err == context.Canceled {
			return nil
		}
		if !(err == nil || way > 5) {
			return err
		}
		return h.Close()
	case 3:
		h, err := asyncsync.Open(ctx, open, nil)
		var failed error = err
		if failed != nil {
			return err
		}
		return h.Close()
	case 4:
		h, err := asyncsync.Open(ctx, open, nil) // want `the handle h is not closed on every path`
		if !(err == nil && way > 5) {
			return err
		}
		return h.Close()
	case 5:
		_, tsc := asyncsync.NewThreadSensitiveContext(ctx)
		if tsc != nil {
			return tsc.Close()
		}
	case 6: // what looks at the error has closed it
		h, err := asyncsync.Open(ctx, open, nil)
		if err == nil {
			err = errors.Join(err, h.Close())
		}
		return wrap(err)
	}
	return nil
}
