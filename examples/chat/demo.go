package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// How many clients of each kind there are.
const (
	tcpClients  = 8
	httpClients = 4
)

// runDemo has clients speak until there are enough messages, stops the server while
// they go on, and compares what they were told with what is in the journal.
func runDemo(ctx context.Context, o options, log *slog.Logger, out io.Writer) error {
	o.strike = 200 * time.Microsecond // so that some are on their way at any time
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	begin := time.Now()
	var c *crowd
	a, err := runServer(ctx, o, log, func(at addresses) {
		c = newCrowd(at.tcp[0], at.http[0], o.messages)
		go func() {
			defer stop() // as a signal would
			select {
			case <-c.enough:
			case <-c.failed:
			case <-ctx.Done():
			}
		}()
	})
	if c != nil {
		c.wait()
	}
	if err != nil {
		return err
	}
	stored, err := readJournal(o.journal)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "chat demo: %d messages of %d clients over TCP, %d over HTTP, and a clock, in %s\n",
		len(stored), tcpClients, httpClients, time.Since(begin).Round(time.Millisecond))
	return report(out, append(checks(c, stored), accounts(a, stored)...))
}

// readJournal reads a journal that nobody has open.
func readJournal(path string) ([]message, error) {
	j, all, err := openJournal(path)
	if err != nil {
		return nil, err
	}
	return all, j.close()
}

// report prints checks, and returns an error if one of them did not hold.
func report(out io.Writer, all []check) error {
	if !threadsKnown {
		fmt.Fprintln(out, "  this system's thread ids are not known here, so threads were not compared")
	}
	var faults []error
	for _, c := range all {
		fmt.Fprintln(out, c)
		if !c.ok {
			faults = append(faults, errors.New(c.String()))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("faults were found:\n%w", errors.Join(faults...))
	}
	fmt.Fprintln(out, "all checks passed")
	return nil
}

// A check is one thing that must hold.
type check struct {
	what   string
	ok     bool
	detail string
}

func (c check) String() string {
	verdict := "ok  "
	if !c.ok {
		verdict = "FAIL"
	}
	return fmt.Sprintf("  %s  %s: %s", verdict, c.what, c.detail)
}

// checks compares what clients were told with what is stored.
func checks(c *crowd, stored []message) []check {
	has := map[message]bool{}
	for _, m := range stored {
		has[m] = true
	}
	told, lost := 0, 0
	var broken, gaps, unheard []string
	for _, client := range c.clients {
		if client.err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", client.name, client.err))
		}
		for _, m := range client.accepted {
			told++
			if !has[m] {
				lost++
			}
		}
		// What a client has heard is what is stored, from some message to the last.
		heard := client.heard
		if len(heard) > 0 {
			from := heard[0].Number - 1
			if to := from + len(heard); from < 0 || to > len(stored) || !slices.Equal(heard, stored[from:to]) {
				gaps = append(gaps, client.name)
			}
		}
		if client.overTCP && (len(heard) == 0 || heard[len(heard)-1].Number != len(stored) || !client.bye) {
			unheard = append(unheard, client.name)
		}
	}
	silent := 0
	for _, client := range c.clients {
		if len(client.accepted) == 0 {
			silent++
		}
	}
	return []check{
		{"clients had nothing to complain about", len(broken) == 0, fmt.Sprintf("%d of them%s", len(c.clients), list(broken))},
		{"every client was heard", silent == 0, fmt.Sprintf("%d were not", silent)},
		{"no message that was accepted was lost", lost == 0 && told > 0, fmt.Sprintf("%d accepted, %d of them lost, %d stored", told, lost, len(stored))},
		{"all heard the same, in the same order", len(gaps) == 0, fmt.Sprintf("%d messages%s", len(stored), list(gaps))},
		{"members heard the last message, and a good-bye", len(unheard) == 0, fmt.Sprintf("%d over TCP%s", tcpClients, list(unheard))},
	}
}

// accounts checks what the server tells of itself.
func accounts(a *account, stored []message) []check {
	strikes := 0
	for _, m := range stored {
		if m.From == clockName {
			strikes++
		}
	}
	apart := true
	for id := range a.room {
		if threadsKnown && (a.journal[id] > 0 || a.clock[id] > 0) {
			apart = false
		}
	}
	return []check{
		{"no strike of the clock was lost", strikes == a.strikes && strikes > 0, fmt.Sprintf("%d accepted, %d stored", a.strikes, strikes)},
		{"the journal has what the room has", a.stored == len(stored), fmt.Sprintf("%d and %d, in %d writes", len(stored), a.stored, a.syncs)},
		{"the room had one OS thread", len(a.room) == 1, threadNames(a.room)},
		{"the journal and the clock had others", apart && len(a.journal) == 1 && len(a.clock) == 1,
			threadNames(a.journal) + ", " + threadNames(a.clock)},
	}
}

func threadNames(threads map[int]int) string {
	var names []string
	for _, id := range slices.Sorted(maps.Keys(threads)) {
		names = append(names, fmt.Sprintf("thread %d", id))
	}
	return strings.Join(names, ", ")
}

// list is what is wrong, to be put after a count.
func list(wrong []string) string {
	if len(wrong) == 0 {
		return ""
	}
	return "\n        " + strings.Join(wrong, "\n        ")
}
