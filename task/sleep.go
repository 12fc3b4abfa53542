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

// Sleep waits for d, or until ctx ends, whose cause it returns. One that has ended
// already is not waited with. With d <= 0 Sleep is [Yield].
//
// In a testing/synctest bubble the time is that of the bubble.
//
// It is EasyNetwork's sleep, and anyio's.
func Sleep(ctx context.Context, d time.Duration) error {
	checkCtx(ctx, "Sleep")
	return sleep(ctx, d)
}

// SleepUntil is [Sleep] until the time t; if that is past it is [Yield].
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

// SleepForever waits until ctx ends, and returns its cause.
func SleepForever(ctx context.Context) error {
	checkCtx(ctx, "SleepForever")
	ctx = core.Afterlife(ctx)
	if err := core.Ended(ctx); err != nil {
		return err
	}
	return core.Park(ctx, nil, "sleep")
}

// Yield lets others run, and returns the cause of ctx if that has ended, before or
// meanwhile. Who the others are depends on the caller:
//
//   - In a task of a thread loop it is everybody who is ready to run there.
//   - On a thread it is the calls that are queued at that moment and may run on
//     top of the caller: those of what the function has started, and under the
//     policy All everybody's.
//   - On an ordinary goroutine it is whom [runtime.Gosched] chooses.
//
// It is asyncio's sleep(0), anyio's checkpoint and EasyNetwork's coro_yield.
func Yield(ctx context.Context) error {
	checkCtx(ctx, "Yield")
	ctx = core.Afterlife(ctx)
	core.Yield(ctx)
	return core.Ended(ctx)
}

// YieldShielded is [Yield] for one who does not want to know whether ctx has ended.
// The next wait with ctx tells it.
//
// It is EasyNetwork's cancel_shielded_coro_yield.
func YieldShielded(ctx context.Context) {
	checkCtx(ctx, "YieldShielded")
	core.Yield(core.Afterlife(ctx))
}
