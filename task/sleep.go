package task

import (
	"context"
	"time"

	"asyncsync.dev/internal/core"
)

// checkCtx panics if ctx is nil.
func checkCtx(ctx context.Context, what string) {
	if ctx == nil {
		panic("task: " + what + ": nil ctx")
	}
}

// Sleep waits for d or until ctx ends. It returns the cause of ctx if ctx has
// ended, before or meanwhile. With d <= 0 Sleep is [Yield]. In a
// testing/synctest bubble it uses the bubble's clock.
//
// It is the sleep of anyio and EasyNetwork.
func Sleep(ctx context.Context, d time.Duration) error {
	checkCtx(ctx, "Sleep")
	return sleep(ctx, d)
}

// SleepUntil is [Sleep] until the time t. If t is in the past it is [Yield].
func SleepUntil(ctx context.Context, t time.Time) error {
	checkCtx(ctx, "SleepUntil")
	return sleep(ctx, time.Until(t))
}

func sleep(ctx context.Context, d time.Duration) error {
	ctx = core.Afterlife(ctx)
	if d <= 0 {
		core.Yield(ctx)
		return core.Ended(ctx)
	}
	if err := core.Ended(ctx); err != nil {
		return err
	}
	b := core.NewBell()
	timer := time.AfterFunc(d, b.Ring)
	defer timer.Stop()
	if err := b.Wait(ctx, "sleep"); err != nil {
		return err
	}
	return core.Ended(ctx)
}

// SleepForever waits until ctx ends, and returns the cause.
func SleepForever(ctx context.Context) error {
	checkCtx(ctx, "SleepForever")
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return err
	}
	return core.Park(ctx, nil, "sleep")
}

// Yield lets others run. It returns the cause of ctx if ctx has ended, before
// or meanwhile. Who the others are depends on the caller:
//
//   - In a task of a thread loop: all tasks and functions that are ready to run
//     on the loop.
//   - On a thread: the calls that are queued at that moment and may run on top
//     of the caller. These are the calls of code that the function has started;
//     with the policy All, every call.
//   - On an ordinary goroutine: the goroutines that [runtime.Gosched] chooses.
//
// It is asyncio's sleep(0), anyio's checkpoint and EasyNetwork's coro_yield.
func Yield(ctx context.Context) error {
	checkCtx(ctx, "Yield")
	ctx = core.Afterlife(ctx)
	core.Yield(ctx)
	return core.Ended(ctx)
}

// YieldShielded is [Yield] without the check of ctx. The next wait with ctx
// reports whether ctx has ended.
//
// It is EasyNetwork's cancel_shielded_coro_yield.
func YieldShielded(ctx context.Context) {
	checkCtx(ctx, "YieldShielded")
	core.Yield(core.Afterlife(ctx))
}
