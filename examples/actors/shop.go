package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"asyncsync.dev/task"
)

// A shop is what the tasks share. All of them are on one thread and take turns where
// they wait, so no field has a lock against the others, and what a task does between
// two waits is done before anybody else sees it.
type shop struct {
	store    *store
	stock    *stock
	till     *till
	lookups  *lookups
	receipts *printer // for the thread of the receipts
	demo     bool

	opening task.Event
	outside int // tasks that wait for the opening
	most    int // the largest value of outside

	done, refused int         // orders
	threads       map[int]int // the OS threads that the shop's tasks were seen on
}

// An order is of one customer for some of two items.
type order struct {
	id       int
	customer string
	items    [2]int
	count    int
}

// newOrder makes up an order. Every 25th comes from an unknown customer.
func newOrder(id int) order {
	o := order{id: id, customer: fmt.Sprintf("customer %d", id%40), items: [2]int{id % kinds, (id + 3) % kinds}, count: 1 + id%3}
	if id%25 == 0 {
		o.customer = "nobody"
	}
	return o
}

// keepShop is the main task. It opens the shop, takes orders until closing is closed,
// or until the demo has had all of its own, and sees them finished.
func keepShop(ctx context.Context, o options, url string, closing <-chan struct{}, out io.Writer) (_ *summary, err error) {
	s := &shop{
		stock:    newStock(),
		lookups:  newLookups(url),
		receipts: &printer{threads: map[int]int{}},
		demo:     o.demo,
		threads:  map[int]int{},
	}
	if !o.demo {
		s.receipts.out = out
	}
	s.seen()
	defer s.lookups.close()
	s.till = newTill(o.orders)
	if s.store, err = openStore(o.db); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.store.close()) }()

	begin := time.Now()
	// The staff works until its shift ends. Orders are below the group of the staff:
	// if that fails nobody is left waiting for it.
	working, shift := task.OpenScope(ctx)
	defer shift.Close(nil)
	working, staff := task.NewGroup(working)
	staff.Go(s.till.work, task.Named("till"))
	staff.Go(s.stock.supply, task.Named("supplier"))

	_, orders := task.NewGroup(working)
	// The mailbox of the till relies on it.
	orders.SetLimit(o.orders)
	taken := 0
	take := func() {
		taken++
		order := newOrder(taken)
		orders.Go(func(ctx context.Context) error { return s.serve(ctx, order) }, task.Named("order"))
	}
	if o.demo {
		for range o.orders {
			take()
		}
		// Who is ready first runs first: when this task comes back all of them
		// have come to their first wait.
		if err := task.Yield(ctx); err != nil {
			return nil, err
		}
	}
	s.opening.Set()
	for !o.demo {
		// A receive that gives up after a while is a pause that can be ended.
		over, err := task.MoveOn(ctx, o.every, func(ctx context.Context) error {
			_, _, err := task.Recv(ctx, closing)
			return err
		})
		if err != nil {
			return nil, err
		}
		if !over {
			break
		}
		take()
	}

	// A bug of an order ends the shop.
	if err := orders.Wait(ctx); err != nil {
		return nil, err
	}
	shift.Cancel(nil)
	// The scope knows its own cancellation, and leaves what else has gone wrong.
	if err := shift.Close(staff.Wait(ctx)); err != nil {
		return nil, err
	}
	return s.summarize(ctx, taken, time.Since(begin))
}

// serve is the life of an order.
func (s *shop) serve(ctx context.Context, o order) error {
	s.outside++
	s.most = max(s.most, s.outside)
	if err := s.opening.Wait(ctx); err != nil {
		return err
	}
	s.outside--
	s.seen()

	// Both prices at once.
	prices, err := task.Gather(ctx,
		func(ctx context.Context) (int, error) { return s.lookups.price(ctx, o.items[0]) },
		func(ctx context.Context) (int, error) { return s.lookups.price(ctx, o.items[1]) })
	if err != nil {
		return err
	}
	amount := o.count * (prices[0] + prices[1])

	if err := s.stock.take(ctx, o.items[:], o.count); err != nil {
		return err
	}
	// The customer is looked up in the middle of the transaction.
	err = s.store.add(ctx, o, amount, func(ctx context.Context) (string, error) {
		s.seen()
		return s.lookups.city(ctx, o.customer)
	})
	if errors.Is(err, errUnknown) {
		s.refused++
		return s.stock.putBack(ctx, o.items[:], o.count)
	}
	if err != nil {
		return err
	}
	if err := s.till.pay(ctx, o.id, amount); err != nil {
		return err
	}
	if err := s.receipt(ctx, o.id); err != nil {
		return err
	}
	s.seen()
	s.done++
	return nil
}

// seen notes the thread that the shop's code is on.
func (s *shop) seen() { s.threads[threadID()]++ }
