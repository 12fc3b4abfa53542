package main

import (
	"context"
	"errors"
	"time"

	"asyncsync.dev/task"
)

// kinds is how many kinds of item there are.
const kinds = 20

// A stock is how much there is of each item. The code that takes from it holds
// mu; a wait on delivered unlocks mu meanwhile.
type stock struct {
	mu        task.Mutex
	delivered *task.Cond
	left      [kinds]int
	lacking   [kinds]int // what those who wait have asked for

	supplied int // in all
	waits    int // times that an order found too little
}

func newStock() *stock {
	k := &stock{}
	k.delivered = task.NewCond(&k.mu)
	return k
}

// take takes n of each of the items, and waits until there is enough.
func (k *stock) take(ctx context.Context, items []int, n int) error {
	if err := k.mu.Lock(ctx); err != nil {
		return err
	}
	defer k.mu.Unlock()
	for !k.has(items, n) {
		k.waits++
		for _, i := range items {
			k.lacking[i] += n
		}
		if err := k.delivered.Wait(ctx); err != nil {
			return err
		}
	}
	for _, i := range items {
		k.left[i] -= n
	}
	return nil
}

func (k *stock) has(items []int, n int) bool {
	for _, i := range items {
		if k.left[i] < n {
			return false
		}
	}
	return true
}

// putBack undoes take.
func (k *stock) putBack(ctx context.Context, items []int, n int) error {
	if err := k.mu.Lock(ctx); err != nil {
		return err
	}
	defer k.mu.Unlock()
	for _, i := range items {
		k.left[i] += n
	}
	k.delivered.Broadcast()
	return nil
}

// supply is the supplier: a task that repeatedly brings what is lacking, until
// ctx ends.
func (k *stock) supply(ctx context.Context) error {
	for {
		if err := task.Sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
		if err := k.mu.Lock(ctx); err != nil {
			return err
		}
		for i, n := range k.lacking {
			k.left[i] += n
			k.supplied += n
		}
		k.lacking = [kinds]int{}
		k.delivered.Broadcast()
		k.mu.Unlock()
	}
}

// sum is how much is left, or an error if that cannot be.
func (k *stock) sum() (n int, err error) {
	for _, left := range k.left {
		if left < 0 {
			err = errors.New("there is less than nothing of an item")
		}
		n += left
	}
	return n, err
}
