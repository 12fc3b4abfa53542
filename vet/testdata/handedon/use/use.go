// Package use gives functions to another package that hands them on.
package use

import (
	"context"

	"asyncsync.dev/loop"
	"asyncsync.dev/vet/testdata/handedon/dep"
)

func calls(ctx context.Context, in chan int, l loop.Loop, s *dep.Store) {
	_, _ = dep.Do(ctx, "x", func(inner context.Context) (int, error) {
		_ = dep.Save(ctx)  // want outerctx:`ctx is from outside: use inner`
		go dep.Save(inner) // want plaingo:`a plain goroutine calls the thread with inner`
		return <-in, nil   // want rawwait:`a receive from a channel`
	})
	_ = dep.Locked(ctx, func(ctx context.Context) error {
		<-in // want rawwait:`a receive from a channel`
		return nil
	})
	_ = dep.Events(ctx, func(ctx context.Context) error {
		<-in // it is meant to last
		return nil
	})
	_, _ = dep.Either(ctx, l, func(inner context.Context) (int, error) {
		_ = dep.Save(ctx) // want outerctx:`ctx is from outside: use inner`
		return <-in, nil  // where this runs is not known
	})
	_ = s.Do(ctx, func(*dep.Store) error {
		<-in // want rawwait:`a receive from a channel`
		return nil
	})
}
