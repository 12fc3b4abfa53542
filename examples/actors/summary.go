package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A summary is what a shop leaves behind.
type summary struct {
	demo           bool
	elapsed        time.Duration
	taken          int
	done, refused  int
	outside        int // orders that waited for the opening at once
	rows           []row
	rollbacks      int
	mixed          int
	supplied, left int
	waits          int
	money          int
	payments       int
	receipts       int
	threads        map[int]int // of the shop
	printer        map[int]int // of the receipts
}

// summarize is called when all tasks have ended but this one.
func (s *shop) summarize(ctx context.Context, taken int, elapsed time.Duration) (*summary, error) {
	rows, err := s.store.rows(0)
	if err != nil {
		return nil, err
	}
	left, err := s.stock.sum()
	if err != nil {
		return nil, err
	}
	receipts, printer, err := s.used(ctx)
	if err != nil {
		return nil, err
	}
	return &summary{
		demo: s.demo, elapsed: elapsed, taken: taken, done: s.done, refused: s.refused, outside: s.most,
		rows: rows, rollbacks: s.store.rollbacks, mixed: s.store.mixed,
		supplied: s.stock.supplied, left: left, waits: s.stock.waits,
		money: s.till.money, payments: s.till.payments, receipts: receipts,
		threads: s.threads, printer: printer,
	}, nil
}

// report prints the summary, and returns an error if something is not as it must be.
func report(out io.Writer, s *summary, lookups int) error {
	name := "actors"
	if s.demo {
		name = "actors demo"
	}
	fmt.Fprintf(out, "%s: %d orders in %s\n", name, s.taken, s.elapsed.Round(time.Millisecond))
	if !threadsKnown {
		fmt.Fprintln(out, "  this system's thread ids are not known here, so threads were not compared")
	}
	var faults []error
	for _, c := range checks(s, lookups) {
		fmt.Fprintln(out, c)
		if !c.ok {
			faults = append(faults, errors.New(c.String()))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("the shop has faults:\n%w", errors.Join(faults...))
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

// checks compares what is left with what there should be.
func checks(s *summary, lookups int) []check {
	known, wrong := 0, 0
	stored := map[int]row{}
	for _, r := range s.rows {
		stored[r.id] = r
	}
	amounts, pieces := 0, 0
	for id := 1; id <= s.taken; id++ {
		o := newOrder(id)
		r, ok := stored[id]
		if o.customer == "nobody" {
			if ok {
				wrong++
			}
			continue
		}
		known++
		amount := o.count * (priceOf(o.items[0]) + priceOf(o.items[1]))
		if r != (row{id, amount, 2 * o.count, o.customer, cityOf(o.customer)}) {
			wrong++
		}
		amounts += amount
		pieces += 2 * o.count
	}
	shared := 0
	for id := range s.printer {
		if s.threads[id] > 0 && threadsKnown {
			shared++
		}
	}
	result := []check{
		{"every order is stored once, as it was taken", wrong == 0 && len(s.rows) == known && s.done == known,
			fmt.Sprintf("%d taken, %d stored, %d wrong", s.taken, len(s.rows), wrong)},
		{"orders of unknown customers were rolled back", s.refused == s.taken-known && s.rollbacks == s.refused,
			fmt.Sprintf("%d refused, %d transactions rolled back", s.refused, s.rollbacks)},
		{"transactions that wait in their middle exclude each other", s.mixed == 0,
			fmt.Sprintf("%d of %d began inside another", s.mixed, s.taken)},
		{"no piece came from nowhere or got lost", s.supplied == s.left+pieces,
			fmt.Sprintf("%d supplied, %d sold, %d left", s.supplied, pieces, s.left)},
		{"the till has what was paid", s.money == amounts && s.payments == known,
			fmt.Sprintf("%d in %d payments", s.money, s.payments)},
		{"every order has a receipt", s.receipts == known,
			fmt.Sprintf("%d receipts", s.receipts)},
		{"the shop had one OS thread", len(s.threads) == 1,
			fmt.Sprintf("%s, seen %d times", threadNames(s.threads), total(s.threads))},
		{"the receipts had another one", len(s.printer) <= 1 && shared == 0,
			threadNames(s.printer)},
	}
	if s.demo {
		result = append(result,
			check{"all orders waited at once for the opening", s.outside == s.taken, fmt.Sprintf("%d tasks on the thread", s.outside)},
			check{"orders waited for the supplier", s.waits > 0, fmt.Sprintf("%d times", s.waits)},
			check{"look-ups were under way at once", lookups >= min(together, s.taken), fmt.Sprintf("%d, for one thread", lookups)})
	}
	return result
}

func total(threads map[int]int) (n int) {
	for _, times := range threads {
		n += times
	}
	return n
}

func threadNames(threads map[int]int) string {
	if len(threads) == 0 {
		return "none"
	}
	var names []string
	for _, id := range slices.Sorted(maps.Keys(threads)) {
		names = append(names, fmt.Sprintf("thread %d", id))
	}
	return strings.Join(names, ", ")
}
