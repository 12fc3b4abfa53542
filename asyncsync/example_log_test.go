package asyncsync_test

import (
	"context"
	"log/slog"
	"os"

	"asyncsync.dev/asyncsync"
)

// Panics, calls that were refused and calls that were abandoned are logged; at
// level Debug every call.
func ExampleLog() {
	l := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey, "thread", "queued", "ran": // they differ from run to run
				return slog.Attr{}
			}
			return a
		},
	}))
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(),
		asyncsync.WithName("ledger"), asyncsync.WithHooks(asyncsync.Log(l)))

	add := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n + 1, nil }, asyncsync.Named("add"))
	add(ctx, 1)
	asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { return add(ctx, 2) }, asyncsync.Named("add more"))
	tsc.Close()
	// Output:
	// level=DEBUG msg="a call has ended" call=add context=ledger
	// level=DEBUG msg="a call has ended" call=add context=ledger inline=true
	// level=DEBUG msg="a call has ended" call="add more" context=ledger
}
