// Package handleescape has values of handles that leave their thread.
package handleescape

import (
	"context"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

type db struct{ rows []int }

func (d *db) query() int { return len(d.rows) }

type server struct {
	h    *asyncsync.Handle[*db]
	last *db
}

var global *db

func returned(ctx context.Context, h *asyncsync.Handle[*db]) (*db, error) {
	return asyncsync.Get(ctx, h, func(ctx context.Context, d *db) (*db, error) {
		return d, nil // want `d, the value of a handle, is returned to another thread: return what is needed of it`
	})
}

func kept(ctx context.Context, s *server) error {
	var outside *db
	var all []*db
	err := s.h.Do(ctx, func(ctx context.Context, d *db) error {
		outside = d          // want `d, the value of a handle, is kept in outside, which is there outside its thread`
		s.last = d           // want `d, the value of a handle, is kept in s.last`
		global = d           // want `d, the value of a handle, is kept in global`
		all = append(all, d) // want `d, the value of a handle, is kept in all`
		again := d
		global = again // want `again, the value of a handle, is kept in global`
		pair := server{last: d}
		*s = pair // want `pair, the value of a handle, is kept in \*s`
		return nil
	})
	_ = outside.query()
	return err
}

func sent(ctx context.Context, h *asyncsync.Handle[*db], to chan *db) error {
	return h.Do(ctx, func(ctx context.Context, d *db) error {
		to <- d // want `d, the value of a handle, is sent away`
		return nil
	})
}

func elsewhere(ctx context.Context, h *asyncsync.Handle[*db], l loop.Loop) error {
	return h.Do(ctx, func(ctx context.Context, d *db) error {
		go d.query() // want `d, the value of a handle, is used by another goroutine`
		go use(d)    // want `d, the value of a handle, is used by another goroutine`
		go func() {
			d.query() // want `d, the value of a handle, is used by another goroutine`
		}()
		t := task.Go(ctx, func(context.Context) (int, error) {
			return d.query(), nil // want `d, the value of a handle, is used in async code: only its thread may touch it`
		})
		_, _ = t.Wait(ctx)
		_, _ = loop.Call(ctx, l, func(context.Context) (int, error) {
			return d.query(), nil // want `d, the value of a handle, is used by a loop`
		})
		_, err := asyncsync.FromThread(ctx, func(context.Context) (int, error) {
			return d.query(), nil // want `d, the value of a handle, is used in async code`
		})
		return err
	})
}

func use(*db) {}

// These stay, or come back.
func stays(ctx context.Context, h *asyncsync.Handle[*db]) (int, error) {
	n := 0
	err := h.Do(ctx, func(ctx context.Context, d *db) error {
		n = d.query()
		use(d)
		func() { use(d) }()
		defer use(d)
		local := &server{last: d}
		use(local.last)
		_ = d
		d = nil
		_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return asyncsync.ToThread(ctx, func(context.Context) (int, error) {
				return d.query(), nil // on the thread again
			})
		})
		if err != nil {
			return err
		}
		_, err = asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return d.query(), nil // on the thread itself
		}, asyncsync.SameThread())
		return err
	})
	if err != nil {
		return n, err
	}
	return asyncsync.Get(ctx, h, func(ctx context.Context, d *db) (int, error) {
		find := func() *db { return d }
		return find().query(), nil
	})
}

// A number is copied.
func number(ctx context.Context, h *asyncsync.Handle[int]) (int, error) {
	return asyncsync.Get(ctx, h, func(ctx context.Context, n int) (int, error) { return n, nil })
}

func silenced(ctx context.Context, h *asyncsync.Handle[*db]) (*db, error) {
	return asyncsync.Get(ctx, h, func(ctx context.Context, d *db) (*db, error) {
		return d, nil //asyncsync:ignore handleescape it is only compared
	})
}

// A value of a pool has a thread as well.
func pools(ctx context.Context, p *asyncsync.HandlePool[*db], s *server) error {
	err := p.Do(ctx, func(ctx context.Context, d *db) error {
		s.last = d // want `d, the value of a pool, is kept in s.last, which is there outside its thread`
		go use(d)  // want `d, the value of a pool, is used by another goroutine: only its thread may touch it`
		use(d)
		return nil
	})
	if err != nil {
		return err
	}
	l, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer l.Release()
	out := make(chan *db, 1)
	err = l.Do(ctx, func(ctx context.Context, d *db) error {
		out <- d // want `d, the value of a pool, is sent away: only its thread may touch it`
		return nil
	})
	if err != nil {
		return err
	}
	_, err = asyncsync.GetFrom(ctx, p, func(ctx context.Context, d *db) (*db, error) {
		return d, nil // want `d, the value of a pool, is returned to another thread: return what is needed of it`
	})
	if err != nil {
		return err
	}
	_, err = asyncsync.GetFrom(ctx, p, func(ctx context.Context, d *db) (int, error) {
		return d.query(), nil
	})
	return err
}
