package otelsync

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/task"
)

// served starts an HTTP server with the metrics, as a program would have it.
func served(t *testing.T, pools map[string]*asyncsync.ThreadPool) (m *Metrics, scrape func() string) {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	require.NoError(t, err)
	p := metric.NewMeterProvider(metric.WithReader(exporter))
	m, err = NewMetrics(p, pools)
	require.NoError(t, err)
	remove := asyncsync.AddHooks(m.Hooks())
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(func() {
		server.Close()
		server.Client().CloseIdleConnections()
		remove()
		require.NoError(t, m.Close())
		require.NoError(t, p.Shutdown(context.Background()))
	})
	return m, func() string {
		answer, err := server.Client().Get(server.URL)
		require.NoError(t, err)
		defer answer.Body.Close()
		require.Equal(t, http.StatusOK, answer.StatusCode)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return string(body)
	}
}

// line returns the value of the one sample of that name with all these labels.
func line(t *testing.T, text, name string, labels ...string) string {
	t.Helper()
	var found []string
next:
	for l := range strings.Lines(text) {
		if !strings.HasPrefix(l, name+"{") && !strings.HasPrefix(l, name+" ") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(l, label) {
				continue next
			}
		}
		found = append(found, strings.TrimSpace(l[strings.LastIndexByte(l, ' '):]))
	}
	require.Len(t, found, 1, "%s %v in\n%s", name, labels, text)
	return found[0]
}

// What Prometheus gets, over HTTP, while calls run, wait and are refused, and after.
func TestScrape(t *testing.T) {
	testkit.Guard(t)
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 1, MaxWaiting: 1})
	defer pool.Close()
	m, scrape := served(t, map[string]*asyncsync.ThreadPool{"db": pool})
	before := asyncsync.ReadStats()
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool), asyncsync.WithName("main"), asyncsync.QueueLimit(1))

	release, running := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	cctx, leave := context.WithCancel(ctx)
	left := task.Go(context.Background(), func(context.Context) (int, error) {
		return 0, to(cctx, "left", func(context.Context) error { close(running); <-release; return nil }, asyncsync.Abandon())
	})
	<-running
	leave()
	_, err := left.Wait(ctx)
	require.ErrorIs(t, err, asyncsync.ErrAbandoned)
	queued := asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, errOwn }, asyncsync.Named("queued"))
	require.ErrorIs(t, to(ctx, "full", func(context.Context) error { return nil }), asyncsync.ErrQueueFull)
	lctx, lined := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithPool(pool))
	defer func() { // in this order, or they wait for each other
		free()
		tsc.Close()
		lined.Close()
	}()
	inLine := asyncsync.Go(lctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("in line"))

	text := scrape()
	require.Equal(t, "1", line(t, text, "asyncsync_calls_queued"))
	require.Equal(t, "1", line(t, text, "asyncsync_calls_abandoned_running"))
	require.Equal(t, "1", line(t, text, "asyncsync_threads_used"))
	require.Equal(t, "1", line(t, text, "asyncsync_pool_threads", `asyncsync_pool="db"`, `asyncsync_state="used"`))
	require.Equal(t, "0", line(t, text, "asyncsync_pool_threads", `asyncsync_pool="db"`, `asyncsync_state="idle"`))
	require.Equal(t, "1", line(t, text, "asyncsync_pool_waiting", `asyncsync_pool="db"`))
	require.Equal(t, "0", line(t, text, "asyncsync_pool_waiting", `asyncsync_pool="default"`))
	require.Equal(t, "1", line(t, text, "asyncsync_calls_refused_total", `asyncsync_call="full"`, `asyncsync_context="main"`, `asyncsync_reason="queue full"`))

	free()
	_, err = queued.Wait(ctx)
	require.ErrorIs(t, err, errOwn)
	require.NoError(t, to(ctx, "outer", func(ctx context.Context) error {
		return to(ctx, "inline", func(context.Context) error { return nil })
	}))
	require.Panics(t, func() { _ = to(ctx, "panics", func(context.Context) error { panic("oh dear") }) })
	require.NoError(t, tsc.Close())
	_, err = inLine.Wait(lctx)
	require.NoError(t, err)
	require.NoError(t, lined.Close())
	m.Verdict(deadlock.Verdict{Kind: deadlock.Probable})
	m.Verdict(deadlock.Verdict{Kind: deadlock.Slow})
	m.Verdict(deadlock.Verdict{Kind: deadlock.Retracted})

	text = scrape()
	t.Log(text)
	after := asyncsync.ReadStats()
	require.Equal(t, before.Abandoned+1, after.Abandoned)
	require.Equal(t, "0", line(t, text, "asyncsync_calls_queued"))
	require.Equal(t, "0", line(t, text, "asyncsync_calls_abandoned_running"))
	require.Equal(t, "0", line(t, text, "asyncsync_threads_used"))
	require.Equal(t, "1", line(t, text, "asyncsync_pool_threads", `asyncsync_pool="db"`, `asyncsync_state="idle"`))
	require.Equal(t, "0", line(t, text, "asyncsync_pool_threads", `asyncsync_pool="db"`, `asyncsync_state="used"`))
	require.Equal(t, "1", line(t, text, "asyncsync_call_queue_duration_seconds_count", `asyncsync_call="queued"`))
	require.Equal(t, "1", line(t, text, "asyncsync_call_run_duration_seconds_count", `asyncsync_call="queued"`, `asyncsync_outcome="error"`))
	require.Equal(t, "1", line(t, text, "asyncsync_call_run_duration_seconds_count", `asyncsync_call="left"`, `asyncsync_outcome="returned"`))
	require.Equal(t, "1", line(t, text, "asyncsync_call_run_duration_seconds_count", `asyncsync_call="panics"`, `asyncsync_outcome="panic"`))
	require.Equal(t, "1", line(t, text, "asyncsync_call_run_duration_seconds_count", `asyncsync_call="inline"`))
	require.NotContains(t, text, `asyncsync_call_queue_duration_seconds_count{asyncsync_call="inline"`)
	require.Equal(t, "1", line(t, text, "asyncsync_deadlock_verdicts_total", `asyncsync_kind="probable"`))
	require.Equal(t, "1", line(t, text, "asyncsync_deadlock_suspected"))
	for _, name := range []string{"calls_cancelled_total", "calls_panicked_total", "calls_goexits_total", "calls_abandoned_total"} {
		line(t, text, "asyncsync_"+name)
	}
	line(t, text, "asyncsync_calls_total", `asyncsync_way="thread"`)
	line(t, text, "asyncsync_calls_total", `asyncsync_way="inline"`)
}

// The watcher's verdicts, of a call that waits for a thread that has stopped looking.
func TestVerdictsOfTheWatcher(t *testing.T) {
	testkit.Guard(t)
	m, scrape := served(t, nil)
	told := make(chan deadlock.Kind, 8)
	stop := deadlock.Watch(deadlock.Config{Slow: time.Millisecond, Interval: 10 * time.Millisecond, OnVerdict: func(v deadlock.Verdict) {
		m.Verdict(v)
		told <- v.Kind
	}})
	defer stop()
	ctx, _ := newContext(t)
	release, running := make(chan struct{}), make(chan struct{})
	first := asyncsync.Go(ctx, func(context.Context) (int, error) { close(running); <-release; return 0, nil })
	<-running
	second := asyncsync.Go(ctx, func(context.Context) (int, error) { return 0, nil })
	require.Equal(t, deadlock.Slow, <-told)
	require.Equal(t, "1", line(t, scrape(), "asyncsync_deadlock_suspected"))
	close(release)
	require.Equal(t, deadlock.Retracted, <-told)
	require.Equal(t, "0", line(t, scrape(), "asyncsync_deadlock_suspected"))
	for _, tk := range []*task.Task[int]{first, second} {
		_, err := tk.Wait(context.Background())
		require.NoError(t, err)
	}
}

// Durations in seconds, exactly, by the clock of a bubble; a call that was taken out
// has waited and has not run, even if that took no time.
func TestDurations(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		m, err := NewMetrics(metric.NewMeterProvider(metric.WithReader(reader)), nil)
		require.NoError(t, err)
		ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithHooks(m.Hooks()))
		first := task.Go(context.Background(), func(context.Context) (int, error) {
			return 0, to(ctx, "first", func(context.Context) error { time.Sleep(3 * time.Second); return nil })
		})
		synctest.Wait()
		cctx, cancel := context.WithCancel(ctx)
		gone := asyncsync.Go(cctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("gone"))
		cancel()
		_, err = gone.Wait(context.Background())
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, to(ctx, "second", func(context.Context) error { time.Sleep(5 * time.Second); return nil }))
		require.ErrorIs(t, to(ctx, "at once", func(context.Context) error { return errOwn }), errOwn)
		_, err = first.Wait(context.Background())
		require.NoError(t, err)
		require.NoError(t, tsc.Close())

		var data metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(context.Background(), &data))
		sums := map[string]float64{}
		for _, m := range data.ScopeMetrics[0].Metrics {
			if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, p := range h.DataPoints {
					name, _ := p.Attributes.Value(keyCall)
					outcome, _ := p.Attributes.Value(keyOutcome)
					sums[strings.TrimSpace(m.Name+" "+name.AsString()+" "+outcome.AsString())] = p.Sum
				}
			}
		}
		require.Equal(t, map[string]float64{
			"asyncsync.call.queue.duration first":         0,
			"asyncsync.call.run.duration first returned":  3,
			"asyncsync.call.queue.duration gone":          0,
			"asyncsync.call.queue.duration second":        3,
			"asyncsync.call.run.duration second returned": 5,
			"asyncsync.call.queue.duration at once":       0,
			"asyncsync.call.run.duration at once error":   0,
		}, sums)
		require.NoError(t, m.Close())
		data = metricdata.ResourceMetrics{}
		require.NoError(t, reader.Collect(context.Background(), &data))
		for _, s := range data.ScopeMetrics {
			for _, m := range s.Metrics {
				require.NotEqual(t, "asyncsync.calls.queued", m.Name, "closed")
			}
		}
	})
}

// The name of the pool that is always reported is taken: one of the two would be lost.
func TestPoolCalledDefault(t *testing.T) {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})
	defer pool.Close()
	m, err := NewMetrics(metric.NewMeterProvider(), map[string]*asyncsync.ThreadPool{"default": pool})
	require.ErrorContains(t, err, `"default"`)
	require.Nil(t, m)
}
