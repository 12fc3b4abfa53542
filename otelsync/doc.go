// Package otelsync shows calls of asyncsync to OpenTelemetry: a span of each, and
// metrics of threads, queues and verdicts.
//
//   - [Traces] returns hooks, for asyncsync.AddHooks or asyncsync.WithHooks, that make a
//     span of each call. The function's ctx carries it, so that the spans which the
//     function makes are its children, on whatever thread it runs.
//   - [NewMetrics] counts and measures: how many calls wait and how long, how long
//     functions run, which threads are in use, what is abandoned or refused, and
//     what deadlock.Watch has found.
//
// Both take a provider, and know of no exporter. Prometheus is served with the
// exporter that OpenTelemetry has for it.
//
// The package is a module of its own, so that users of asyncsync do not depend on
// OpenTelemetry.
package otelsync

// scope is the instrumentation scope of all that is here.
const scope = "asyncsync.dev/otelsync"
