package otelsync

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"asyncsync.dev/asyncsync"
)

// What a call to another thread, and one that is inline, cost without hooks, with a
// hook that does nothing, and with those of this package.
func BenchmarkHop(b *testing.B) {
	metrics, err := NewMetrics(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader())), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer metrics.Close()
	sampled := sdktrace.NewTracerProvider() // records, and exports to nobody
	dropped := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	for _, c := range []struct {
		name  string
		hooks []asyncsync.Hooks
	}{
		{"without", nil},
		{"hook", []asyncsync.Hooks{{Ended: func(asyncsync.CallInfo) {}}}},
		{"metrics", []asyncsync.Hooks{metrics.Hooks()}},
		{"traces=not sampled", []asyncsync.Hooks{Traces(dropped)}},
		{"traces=sampled", []asyncsync.Hooks{Traces(sampled)}},
		{"both", []asyncsync.Hooks{metrics.Hooks(), Traces(sampled)}},
	} {
		var opts []asyncsync.ContextOption
		for _, h := range c.hooks {
			opts = append(opts, asyncsync.WithHooks(h))
		}
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
		call := asyncsync.SyncToAsync(func(_ context.Context, n int) (int, error) { return n, nil }, asyncsync.Named("call"))
		run := func(b *testing.B, ctx context.Context) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := call(ctx, 1); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(c.name+"/queued", func(b *testing.B) { run(b, ctx) })
		b.Run(c.name+"/inline", func(b *testing.B) {
			_, _ = asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) { run(b, ctx); return 0, nil })
		})
		tsc.Close()
	}
}
