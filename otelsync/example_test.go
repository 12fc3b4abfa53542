package otelsync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/otelsync"
)

// A call below a function on a thread hangs below it in the trace, and so does a span
// that a function makes by itself.
func ExampleTraces() {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	defer asyncsync.AddHooks(otelsync.Traces(provider))()
	tracer := provider.Tracer("example")

	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
	defer tsc.Close()
	ctx, request := tracer.Start(ctx, "request")
	insert := asyncsync.SyncToAsync(func(ctx context.Context, name string) (int, error) {
		_, span := tracer.Start(ctx, "INSERT")
		defer span.End()
		return 0, errors.New("disk full")
	}, asyncsync.Named("insert"))
	asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		return asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
			return insert(ctx, "Ada")
		}, asyncsync.Named("look up"))
	}, asyncsync.Named("transaction"))
	request.End()

	names := map[any]string{}
	for _, s := range spans.Started() {
		names[s.SpanContext().SpanID()] = s.Name()
		fmt.Printf("%s: below %q\n", s.Name(), names[s.Parent().SpanID()])
	}
	for _, s := range spans.Ended() {
		if s.Name() == "insert" {
			fmt.Println(s.Status().Code, s.Status().Description)
		}
	}
	// Output:
	// request: below ""
	// transaction: below "request"
	// look up: below "transaction"
	// insert: below "look up"
	// INSERT: below "insert"
	// Error disk full
}

// Prometheus reads the metrics over HTTP. A program also gives deadlock.Watch the
// method Verdict.
func ExampleNewMetrics() {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		panic(err)
	}
	metrics, err := otelsync.NewMetrics(metric.NewMeterProvider(metric.WithReader(exporter)), nil)
	if err != nil {
		panic(err)
	}
	defer metrics.Close()
	defer asyncsync.AddHooks(metrics.Hooks())()
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()

	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), asyncsync.WithName("db"))
	defer tsc.Close()
	asyncsync.ToThread(ctx, func(context.Context) (int, error) { return 0, nil }, asyncsync.Named("insert"))

	answer, err := http.Get(server.URL)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "asyncsync_call_run_duration_seconds_count") ||
			strings.HasPrefix(line, "asyncsync_calls_queued") || strings.HasPrefix(line, "asyncsync_threads_used") {
			fmt.Print(line)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// asyncsync_call_run_duration_seconds_count{asyncsync_call="insert",asyncsync_context="db",asyncsync_outcome="returned"} 1
	// asyncsync_calls_queued 0
	// asyncsync_threads_used 1
}
