// Package lostlease has leases that are not released.
package lostlease

import (
	"context"
	"errors"
	"testing"

	"asyncsync.dev/asyncsync"
)

type db struct{}

type pool = asyncsync.HandlePool[*db]

func run(context.Context, *db) error   { return nil }
func keep(*asyncsync.Lease[*db])       {}
func begin() error                     { return errors.New("no") }
func handle(context.Context) error     { return nil }
func other() interface{ Acquire(int) } { return nil }

func dropped(ctx context.Context, p *pool) {
	_, _ = p.Acquire(ctx)                     // want `the lease that HandlePool.Acquire returns is dropped, and never released`
	p.Acquire(ctx)                            // want `the lease that HandlePool.Acquire returns is dropped`
	if _, err := p.Acquire(ctx); err != nil { // want `the lease that HandlePool.Acquire returns is dropped`
		return
	}
}

func never(ctx context.Context, p *pool) error {
	l, err := p.Acquire(ctx) // want `the lease l is never released`
	if err != nil {
		return err
	}
	if err := handle(l.Context()); err != nil {
		return err
	}
	return l.Do(ctx, run)
}

func early(ctx context.Context, p *pool) error {
	l, err := p.Acquire(ctx) // want `the lease l is not released on every path: see the return in line 47`
	if err != nil {
		return err // there is none
	}
	if err := l.Do(ctx, run); err != nil {
		return err
	}
	l.Release()
	return nil
}

func falls(ctx context.Context, p *pool, ok bool) {
	l, _ := p.Acquire(ctx) // want `not released on every path`
	if ok {
		l.Release()
	}
}

// Another error, of another call, says nothing of the lease.
func reassigned(ctx context.Context, p *pool) error {
	l, err := p.Acquire(ctx) // want `not released on every path: see the return in line 67`
	if err != nil {
		return err
	}
	if err = begin(); err != nil {
		return err
	}
	l.Release()
	return nil
}

// These are released.
func deferred(ctx context.Context, p *pool) error {
	l, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer l.Release()
	return errors.Join(handle(l.Context()), l.Do(ctx, run))
}

func equal(ctx context.Context, p *pool) (err error) {
	l, err := p.Acquire(ctx)
	if err == nil {
		err = l.Do(ctx, run)
		l.Release()
	}
	return err
}

func closure(ctx context.Context, p *pool) error {
	l, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer func() { l.Release() }()
	return begin()
}

func fails(ctx context.Context, p *pool) {
	l, err := p.Acquire(ctx)
	if err != nil {
		panic(err)
	}
	l.Release()
}

// These are somebody else's to release.
type holder struct{ l *asyncsync.Lease[*db] }

func given(ctx context.Context, p *pool, to *holder, t *testing.T) (*asyncsync.Lease[*db], error) {
	a, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	keep(a)
	b, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	t.Cleanup(b.Release)
	if to.l, err = p.Acquire(ctx); err != nil {
		return nil, err
	}
	return p.Acquire(ctx)
}

func result(ctx context.Context, p *pool) (l *asyncsync.Lease[*db], err error) {
	l, err = p.Acquire(ctx)
	return
}

// Another Acquire is none of ours.
func foreign() { other().Acquire(1) }

func silenced(ctx context.Context, p *pool) {
	l, _ := p.Acquire(ctx) //asyncsync:ignore lostlease the process ends
	_ = l.Do(ctx, run)
}

// Each path has an error of its own.
func branches(ctx context.Context, p *pool, c bool) error {
	l, err := p.Acquire(ctx) // want `the lease l is not released on every path`
	if c {
		println("c")
	} else {
		err = begin()
	}
	if err != nil {
		return err
	}
	l.Release()
	return nil
}

// The error is looked at in a way that is not followed.
func obscure(ctx context.Context, p *pool) error {
	l, err := p.Acquire(ctx)
	if ok := err == nil; !ok {
		return err
	}
	l.Release()
	return nil
}
