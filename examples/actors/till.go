package main

import (
	"context"

	"asyncsync.dev/task"
)

// A till is an actor: a task that alone knows how much money there is. Others
// talk to it through its mailbox.
type till struct {
	mail chan payment

	money, payments int // of work
}

// A payment is a letter to the till.
type payment struct {
	order, amount int
	paid          chan int // the answer: the number of the payment
}

// newTill returns the till of a shop with that many orders under way. Each has
// at most one payment in the mailbox, so the mailbox is never full. A send to a
// full channel would block the thread of all tasks, including the till.
func newTill(orders int) *till {
	return &till{mail: make(chan payment, orders)}
}

// work is the task of the till.
func (t *till) work(ctx context.Context) error {
	for {
		p, _, err := task.Recv(ctx, t.mail)
		if err != nil {
			return err
		}
		t.money += p.amount
		t.payments++
		p.paid <- t.payments
	}
}

// pay is called by others. It waits for the answer.
func (t *till) pay(ctx context.Context, order, amount int) error {
	p := payment{order, amount, make(chan int, 1)}
	t.mail <- p
	_, _, err := task.Recv(ctx, p.paid)
	return err
}
