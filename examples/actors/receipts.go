package main

import (
	"context"
	"fmt"
	"io"

	"asyncsync.dev/asyncsync"
)

// A printer stands for sync code of others that blocks, and that must have a thread
// of its own. Only functions on that thread touch it.
type printer struct {
	out     io.Writer // nil for a printer without paper
	number  int
	threads map[int]int
}

// receipt has a receipt made for a stored order. The task is parked meanwhile, however
// long the printer takes. The printer may not touch the connection, which belongs to
// the shop's thread: it asks.
func (s *shop) receipt(ctx context.Context, id int) error {
	_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
		p := s.receipts
		p.threads[threadID()]++
		// A task of the shop's loop again, for which the printer's thread waits.
		rows, err := asyncsync.FromThread(ctx, func(context.Context) ([]row, error) {
			s.seen()
			return s.store.rows(id)
		})
		if err != nil {
			return 0, err
		}
		if len(rows) != 1 {
			return 0, fmt.Errorf("a receipt for order %d, which is stored %d times", id, len(rows))
		}
		p.number++
		if p.out != nil {
			r := rows[0]
			_, err = fmt.Fprintf(p.out, "receipt %d: order %d of %s, %d pieces to %s: %d\n", p.number, r.id, r.customer, r.pieces, r.city, r.amount)
		}
		return 0, err
	}, asyncsync.Named("receipt"))
	return err
}

// used tells how often the printer was used, and on which threads.
func (s *shop) used(ctx context.Context) (n int, threads map[int]int, err error) {
	n, err = asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		threads = s.receipts.threads
		return s.receipts.number, nil
	})
	return n, threads, err
}
