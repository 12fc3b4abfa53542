package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// runDemo drives a with real HTTP requests from several clients at a time,
// checks the outcome, and writes a summary to out. It fails if a request was
// answered wrongly or a check did not hold.
func runDemo(ctx context.Context, a *app, requests, clients int, out io.Writer) error {
	if notes, err := a.store.find(ctx, filter{Limit: 1}); err != nil {
		return err
	} else if len(notes) > 0 {
		return errors.New("the demo counts notes, so it needs an empty database")
	}

	begin := time.Now()
	written, err := visit(ctx, a.pages.url, requests, clients)
	if err != nil {
		return err
	}
	elapsed := time.Since(begin)

	e, err := examine(ctx, a)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "notes demo: %d requests from %d clients in %s\n", requests, clients, elapsed.Round(time.Millisecond))
	summarize(out, written, e)

	var faults []error
	for _, c := range checks(written, e) {
		fmt.Fprintln(out, c)
		if !c.ok {
			faults = append(faults, errors.New(c.String()))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("the demo found faults:\n%w", errors.Join(faults...))
	}
	fmt.Fprintln(out, "all checks passed")
	return nil
}

// visit has clients make the requests, numbered from 0, and returns what they
// wrote. The first wrong answer stops them all.
func visit(ctx context.Context, site string, requests, clients int) (*ledger, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = clients
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		// A form's redirect is an answer to look at, not a request to count.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}

	var next atomic.Int64
	ledgers := make([]*ledger, clients)
	var running sync.WaitGroup
	for c := range clients {
		v := &visitor{site: site, http: client, ledger: newLedger()}
		ledgers[c] = v.ledger
		running.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= requests {
					return
				}
				if err := v.visit(ctx, i); err != nil {
					cancel(fmt.Errorf("request %d: %w", i, err))
				}
			}
		})
	}
	running.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return merge(ledgers), nil
}

// summarize prints the numbers of the run.
func summarize(out io.Writer, written *ledger, e *evidence) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(out, "  %-18s%s\n", what, fmt.Sprintf(format, args...))
	}
	line("notes written", "%d: %d typed in, %d imported by %d imports",
		len(written.notes), len(written.notes)-written.links, written.links, written.imports)
	line("rolled back", "%d imports", e.usage.rollbacks)
	line("look-ups", "%d over HTTP, from inside transactions", e.lookups())
	line("database calls", "%d on %s; %d of them nested, up to %d deep",
		e.usage.calls, threadNames(e.usage.threads), e.usage.nested, e.usage.deepest)
	line("request threads", "%d, lent %d times", len(e.leases.threads), e.leases.leases)
	if !threadsKnown {
		line("note", "this system's thread ids are not known here, so threads were not compared")
	}
}
