package otelsync

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/loop"
)

// refusals are the reasons for which calls are refused, with their names.
var refusals = []struct {
	err    error
	reason string
}{
	{asyncsync.ErrQueueFull, "queue full"},
	{asyncsync.ErrPoolFull, "pool full"},
	{asyncsync.ErrClosed, "closed"},
	{asyncsync.ErrNoContext, "no context"},
	{deadlock.ErrDeadlock, "deadlock"},
	{loop.ErrStopped, "loop stopped"},
}

// outcomeOf returns the outcome of a call that has ended and, if it was
// refused, the reason.
func outcomeOf(i *asyncsync.CallInfo) (outcome, reason string) {
	switch {
	case i.Panic != nil:
		return "panic", ""
	case i.Goexit:
		return "goexit", ""
	case !i.Begun:
		// The ctx of a task ends when its loop stops, which is a refusal.
		if core.Cancelled(i) && i.Err != loop.ErrStopped {
			return "cancelled", ""
		}
		for _, r := range refusals {
			if errors.Is(i.Err, r.err) {
				return "refused", r.reason
			}
		}
		return "cancelled", ""
	case i.Err != nil:
		return "error", ""
	}
	return "returned", ""
}

// Metrics are the instruments of a process. Its methods may be called from
// anywhere.
//
//	instrument                        | unit      | what
//	asyncsync.calls                   | {call}    | that have ended, with asyncsync.way: thread, or inline
//	asyncsync.calls.queued            | {call}    | that wait for a thread now
//	asyncsync.calls.cancelled         | {call}    | taken out before they ran
//	asyncsync.calls.panicked          | {call}    |
//	asyncsync.calls.goexits           | {call}    |
//	asyncsync.calls.abandoned         | {call}    | that their callers have left
//	asyncsync.calls.abandoned.running | {call}    | of these, that have not ended
//	asyncsync.threads.used            | {thread}  | that have a context, adopted ones included
//	asyncsync.pool.threads            | {thread}  | of a pool, with asyncsync.state: used, or idle
//	asyncsync.pool.waiting            | {context} | that wait in line for a thread of the pool
//	asyncsync.call.queue.duration     | s         | from when a call was made until it began, or was given up
//	asyncsync.call.run.duration       | s         | from the beginning of the function to its end
//	asyncsync.calls.refused           | {call}    | with asyncsync.reason
//	asyncsync.deadlock.verdicts       | {verdict} | with asyncsync.kind: probable, slow, retracted
//	asyncsync.deadlock.suspected      | {verdict} | of these, that have not been retracted
//
// The instruments down to asyncsync.pool.waiting are read when a reader
// collects, and cost calls nothing. The next three need [Metrics.Hooks], the
// last two [Metrics.Verdict]. Calls of a context that waits in line for a
// thread are counted as queued once it has one.
//
// Durations and refusals have the attributes asyncsync.call and
// asyncsync.context, the names. A run duration also has asyncsync.outcome (see
// [Traces]). Give calls and contexts few different names, or drop the names in
// a view.
type Metrics struct {
	queue, run metric.Float64Histogram
	refused    metric.Int64Counter
	verdicts   metric.Int64Counter
	suspected  metric.Int64UpDownCounter
	read       metric.Registration
}

// boundaries of durations, in seconds: the defaults of OpenTelemetry are for
// milliseconds.
var boundaries = []float64{1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, .01, .05, .1, .5, 1, 5, 10, 60}

// NewMetrics makes the instruments with p; nil is the global provider. pools
// are the pools to report, by name, in addition to the pool of contexts that
// name none, which is called default. A nil pool panics. An error is the
// provider's, or says that one of pools is called default as well.
//
// One Metrics for each provider is enough: a second one reports the same again.
func NewMetrics(p metric.MeterProvider, pools map[string]*asyncsync.ThreadPool) (*Metrics, error) {
	if p == nil {
		p = otel.GetMeterProvider()
	}
	if _, taken := pools["default"]; taken {
		return nil, errors.New(`otelsync: NewMetrics: the pool "default" needs another name: the pool of contexts that name none has it`)
	}
	b := builder{meter: p.Meter(scope)}
	m := &Metrics{
		queue:     b.duration("asyncsync.call.queue.duration", "How long calls were queued."),
		run:       b.duration("asyncsync.call.run.duration", "How long functions ran."),
		refused:   b.sum("asyncsync.calls.refused", "{call}", "Calls that were refused."),
		verdicts:  b.sum("asyncsync.deadlock.verdicts", "{verdict}", "Verdicts of the watcher."),
		suspected: b.upDown("asyncsync.deadlock.suspected", "{verdict}", "Verdicts that have not been retracted."),
	}
	var (
		calls     = b.counter("asyncsync.calls", "Calls that have ended.")
		queued    = b.gauge("asyncsync.calls.queued", "{call}", "Calls that wait for a thread.")
		cancelled = b.counter("asyncsync.calls.cancelled", "Calls taken out before they ran.")
		panicked  = b.counter("asyncsync.calls.panicked", "Functions that panicked.")
		goexits   = b.counter("asyncsync.calls.goexits", "Functions that called runtime.Goexit.")
		abandoned = b.counter("asyncsync.calls.abandoned", "Calls that their callers have left.")
		running   = b.gauge("asyncsync.calls.abandoned.running", "{call}", "Abandoned functions that have not ended.")
		used      = b.gauge("asyncsync.threads.used", "{thread}", "Threads that have a context.")
		threads   = b.gauge("asyncsync.pool.threads", "{thread}", "Threads of a pool.")
		waiting   = b.gauge("asyncsync.pool.waiting", "{context}", "Contexts in line for a thread of a pool.")
	)
	if b.err != nil {
		return nil, b.err
	}
	stats := map[string]func() asyncsync.ThreadPoolStats{"default": core.DefaultPool.Stats}
	for name, pool := range pools {
		if pool == nil {
			panic("otelsync: NewMetrics: nil ThreadPool " + name)
		}
		stats[name] = pool.Stats
	}
	var err error
	m.read, err = b.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := asyncsync.ReadStats()
		o.ObserveInt64(calls, int64(s.Calls), metric.WithAttributes(keyWay.String("thread")))
		o.ObserveInt64(calls, int64(s.Inline), metric.WithAttributes(keyWay.String("inline")))
		o.ObserveInt64(queued, int64(s.Queued))
		o.ObserveInt64(cancelled, int64(s.Cancelled))
		o.ObserveInt64(panicked, int64(s.Panicked))
		o.ObserveInt64(goexits, int64(s.Goexits))
		o.ObserveInt64(abandoned, int64(s.Abandoned))
		o.ObserveInt64(running, int64(s.AbandonedRunning))
		o.ObserveInt64(used, int64(s.Threads))
		for name, read := range stats {
			p, pool := read(), keyPool.String(name)
			o.ObserveInt64(threads, int64(p.Threads-p.Idle), metric.WithAttributes(pool, keyState.String("used")))
			o.ObserveInt64(threads, int64(p.Idle), metric.WithAttributes(pool, keyState.String("idle")))
			o.ObserveInt64(waiting, int64(p.Waiting), metric.WithAttributes(pool))
		}
		return nil
	}, calls, queued, cancelled, panicked, goexits, abandoned, running, used, threads, waiting)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Hooks returns hooks that measure calls, for asyncsync.AddHooks or
// asyncsync.WithHooks. A measurement is made with the ctx of the call: together
// with [Traces], an exemplar leads to the span.
func (m *Metrics) Hooks() asyncsync.Hooks { return asyncsync.Hooks{Ended: m.ended} }

func (m *Metrics) ended(i asyncsync.CallInfo) {
	if i.ID == 0 {
		return // no call
	}
	outcome, reason := outcomeOf(&i)
	call, context := keyCall.String(i.Name), keyContext.String(i.Context)
	if !i.Inline {
		m.queue.Record(i.Ctx, i.QueueTime.Seconds(), metric.WithAttributes(call, context))
	}
	switch {
	case i.Begun:
		m.run.Record(i.Ctx, i.RunTime.Seconds(), metric.WithAttributes(call, context, keyOutcome.String(outcome)))
	case outcome == "refused":
		m.refused.Add(i.Ctx, 1, metric.WithAttributes(call, context, keyReason.String(reason)))
	}
}

// Verdict counts v. Use it as the OnVerdict of a deadlock.Config, or call it
// there.
func (m *Metrics) Verdict(v deadlock.Verdict) {
	ctx := context.Background()
	m.verdicts.Add(ctx, 1, metric.WithAttributes(keyKind.String(string(v.Kind))))
	if v.Kind == deadlock.Retracted {
		m.suspected.Add(ctx, -1)
	} else {
		m.suspected.Add(ctx, 1)
	}
}

// Close stops the reading of the observed instruments. It does not remove
// hooks. An error is the provider's.
func (m *Metrics) Close() error { return m.read.Unregister() }

// A builder makes instruments, and keeps the first error.
type builder struct {
	meter metric.Meter
	err   error
}

func (b *builder) note(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) duration(name, what string) metric.Float64Histogram {
	h, err := b.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(boundaries...))
	b.note(err)
	return h
}

func (b *builder) counter(name, what string) metric.Int64ObservableCounter {
	c, err := b.meter.Int64ObservableCounter(name, metric.WithUnit("{call}"), metric.WithDescription(what))
	b.note(err)
	return c
}

func (b *builder) gauge(name, unit, what string) metric.Int64ObservableUpDownCounter {
	g, err := b.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.note(err)
	return g
}

func (b *builder) sum(name, unit, what string) metric.Int64Counter {
	c, err := b.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.note(err)
	return c
}

func (b *builder) upDown(name, unit, what string) metric.Int64UpDownCounter {
	c, err := b.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.note(err)
	return c
}
