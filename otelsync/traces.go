package otelsync

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"asyncsync.dev/asyncsync"
)

// The attributes of spans and metrics.
const (
	keyCall    = attribute.Key("asyncsync.call")           // the name of a call
	keyContext = attribute.Key("asyncsync.context")        // the name of its context
	keyInline  = attribute.Key("asyncsync.inline")         // it ran where it was made
	keyQueue   = attribute.Key("asyncsync.queue.duration") // how long it was queued, in seconds
	keyThread  = attribute.Key("asyncsync.thread.id")      // the OS thread
	keyOutcome = attribute.Key("asyncsync.outcome")        // see outcome
	keyReason  = attribute.Key("asyncsync.reason")         // of a refusal
	keyPool    = attribute.Key("asyncsync.pool")           // the name of a pool
	keyState   = attribute.Key("asyncsync.state")          // of its threads: used or idle
	keyWay     = attribute.Key("asyncsync.way")            // of a call: thread or inline
	keyKind    = attribute.Key("asyncsync.kind")           // of a verdict
)

// Traces returns hooks that make a span of each call they are told of, tasks
// included. p makes the spans; nil is the global provider at the time of the
// call of Traces.
//
// The span has the name of the call. It begins when the call is made. It ends
// when the function has ended, or when it is certain that the call does not
// run. Its parent is the span in the caller's ctx. So a nested call appears
// below the call that made it, whichever threads the two run on, and a call
// made with a ctx from outside appears outside.
//
// The ctx of the function carries the span. A span that is begun with it is a
// child, and should end before the function does. Tasks are children of the
// span in which they were started, and may outlive it; so may the function of
// an abandoned call.
//
// When the function begins, the span gets the event "begun" and the attribute
// asyncsync.queue.duration, in seconds. A call that did not run gets that
// attribute at its end. The wait has no span of its own: that would double the
// exported data, and an attribute can be searched for. Other attributes are
// asyncsync.context, the name of the context; asyncsync.thread.id, the OS
// thread; asyncsync.inline, if the caller was on that thread already, where
// there is no wait and no event; and asyncsync.outcome:
//
//	outcome   | the function                         | status
//	returned  | returned nil                         | unset
//	error     | returned an error                    | Error, with that
//	panic     | panicked                             | Error, with the value
//	goexit    | called runtime.Goexit                | Error
//	refused   | did not run: no place, closed, …     | Error, with the reason
//	cancelled | did not run: its ctx ended in time   | Error, with the cause
//
// Errors and panics are also events. A panic is an event of the call in which
// it began, with its stack, and not of the calls that it passes through.
//
// A call that the tracer does not sample costs one hook and one span that is
// not recorded. Tell each call to the hooks of one Traces only: with two, each
// makes a span, and the spans of the first are the parents of both.
func Traces(p trace.TracerProvider) asyncsync.Hooks {
	if p == nil {
		p = otel.GetTracerProvider()
	}
	t := &tracing{p.Tracer(scope)}
	return asyncsync.Hooks{Values: t.queued, Started: t.started, Ended: t.ended, Panicked: t.panicked}
}

// tracing is what the hooks of one Traces share. It is also the key of their
// spans, so that they end no spans of others.
type tracing struct{ tracer trace.Tracer }

// A spanned is the span of a call.
type spanned struct {
	trace.Span
	id uint64 // of the call: its ctx may be that of another, which is no call
}

func (t *tracing) queued(i asyncsync.CallInfo) context.Context {
	attrs := make([]attribute.KeyValue, 0, 2)
	if i.Context != "" {
		attrs = append(attrs, keyContext.String(i.Context))
	}
	if i.Inline {
		attrs = append(attrs, keyInline.Bool(true))
	}
	_, span := t.tracer.Start(i.Ctx, i.Name, trace.WithAttributes(attrs...))
	ctx := trace.ContextWithSpan(context.Background(), span)
	return context.WithValue(ctx, t, &spanned{span, i.ID})
}

// span returns the span of the call, or nil if no span is recorded.
func (t *tracing) span(i *asyncsync.CallInfo) trace.Span {
	s, _ := i.Ctx.Value(t).(*spanned)
	if s == nil || s.id != i.ID || !s.IsRecording() {
		return nil
	}
	return s.Span
}

func (t *tracing) started(i asyncsync.CallInfo) {
	span := t.span(&i)
	if span == nil {
		return
	}
	if i.Thread != 0 {
		span.SetAttributes(keyThread.Int(i.Thread))
	}
	if !i.Inline {
		span.SetAttributes(keyQueue.Float64(i.QueueTime.Seconds()))
		span.AddEvent("begun")
	}
}

func (t *tracing) panicked(i asyncsync.CallInfo) {
	if span := t.span(&i); span != nil {
		exception(span, i.Panic, attribute.String("exception.stacktrace", string(i.Stack)))
	}
}

// exception adds the event of an error or a panic with the value v. RecordError of a
// span would call v.Error, which panics for a nil pointer of many types. Package fmt
// recovers that.
func exception(span trace.Span, v any, more ...attribute.KeyValue) {
	span.AddEvent("exception", trace.WithAttributes(append(more,
		attribute.String("exception.type", fmt.Sprintf("%T", v)),
		attribute.String("exception.message", fmt.Sprint(v)),
	)...))
}

func (t *tracing) ended(i asyncsync.CallInfo) {
	span := t.span(&i)
	if span == nil {
		return
	}
	outcome, _ := outcomeOf(&i)
	span.SetAttributes(keyOutcome.String(outcome))
	if !i.Begun {
		span.SetAttributes(keyQueue.Float64(i.QueueTime.Seconds()))
	}
	switch {
	case i.Panic != nil:
		span.SetStatus(codes.Error, fmt.Sprint("panic: ", i.Panic))
	case i.Goexit:
		span.SetStatus(codes.Error, "runtime.Goexit")
	case i.Err != nil:
		exception(span, i.Err)
		span.SetStatus(codes.Error, fmt.Sprint(i.Err))
	}
	span.End()
}
