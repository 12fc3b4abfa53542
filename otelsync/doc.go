// Package otelsync exports calls of asyncsync to OpenTelemetry: a span of each
// call, and metrics of threads, queues and verdicts.
//
//   - [Traces] returns hooks, for asyncsync.AddHooks or asyncsync.WithHooks,
//     that make a span of each call. The ctx of the function carries the span,
//     so spans that the function makes are its children, whichever thread it
//     runs on.
//   - [NewMetrics] counts and measures: how many calls wait and how long, how
//     long functions run, which threads are in use, what is abandoned or
//     refused, and what deadlock.Watch has found.
//
// Both take a provider and are independent of exporters. For Prometheus, use
// OpenTelemetry's exporter.
//
// The package is a module of its own, so that users of asyncsync do not depend
// on OpenTelemetry.
package otelsync

// scope is the instrumentation scope of this package.
const scope = "asyncsync.dev/otelsync"
