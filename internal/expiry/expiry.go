// Package expiry tells many who wait in queues that the ctx they were started with has
// ended. However many wait for one channel, there is one watcher: context.AfterFunc for
// each of a million would take longer, and more memory, than what they wait for.
//
// It knows nothing of threads and calls.
package expiry

import (
	"context"
	"sync"
)

// A Waiter is told that its ctx has ended.
type Waiter interface {
	// Expire is called once, after the end of ctx, which may be that of another with
	// the same channel. No lock is held. Waiters that were added before the first Expire
	// for their channel are told one after the other, in the order in which they were
	// added. If it calls Goexit the others are told all the same.
	Expire(ctx context.Context)
}

// A Table knows which waiters wait for the end of which ctx. The zero value is ready to
// use.
type Table[T Waiter] struct {
	mu sync.Mutex // a leaf lock; guards all watchers and links
	by map[<-chan struct{}]*watcher[T]
}

// A watcher waits for the end of a ctx, for all that were added with its channel.
type watcher[T Waiter] struct {
	table      *Table[T]
	done       <-chan struct{}
	ctx        context.Context // of the first; the others have the same channel
	head, tail *Link[T]
	stop       func() bool // nil until the watch has begun
	over       bool        // nobody waits any more, or the ctx has ended
}

// A Link is the place of one waiter.
type Link[T Waiter] struct {
	of            T
	in            *watcher[T] // nil while it is not in one
	before, after *Link[T]
}

// Add has Expire called on of when ctx has ended, until the link is removed. done is what
// ctx.Done has returned, not nil: a foreign ctx may return another the next time. Where
// ctx ends meanwhile, Expire may be called before Add returns.
func (t *Table[T]) Add(ctx context.Context, done <-chan struct{}, of T) *Link[T] {
	t.mu.Lock()
	w := t.by[done]
	first := w == nil
	var k *Link[T]
	if first {
		both := &struct {
			watcher watcher[T]
			link    Link[T]
		}{}
		w, k = &both.watcher, &both.link
		w.table, w.done, w.ctx = t, done, ctx
		if t.by == nil {
			t.by = make(map[<-chan struct{}]*watcher[T])
		}
		t.by[done] = w
	} else {
		k = &Link[T]{}
	}
	k.of, k.in, k.before = of, w, w.tail
	if w.tail != nil {
		w.tail.after = k
	} else {
		w.head = k
	}
	w.tail = k
	t.mu.Unlock()
	if !first {
		return k
	}
	// k, which nobody else has yet, keeps the watcher until its ctx has ended.
	stop := w.watch() // ctx may be the user's: no lock is held
	t.mu.Lock()
	w.stop = stop
	t.mu.Unlock()
	return k
}

// Remove forgets k, which may be nil, if it is there.
func (t *Table[T]) Remove(k *Link[T]) {
	if k == nil {
		return
	}
	t.mu.Lock()
	w := k.in
	if w == nil {
		t.mu.Unlock()
		return
	}
	w.unlink(k)
	var stop func() bool
	if w.head == nil && !w.over {
		w.end()
		stop = w.stop
	}
	t.mu.Unlock()
	if stop != nil {
		w.unwatch(stop)
	}
}

// Len returns how many channels are watched.
func (t *Table[T]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.by)
}

// watch has fire called when the ctx ends. context.AfterFunc panics where ctx is of a
// foreign type that breaks its contract, and says at once that it has ended and that it
// has not. Such a ctx counts as ended.
func (w *watcher[T]) watch() (stop func() bool) {
	defer func() {
		if recover() != nil {
			go w.fire()
			stop = func() bool { return false }
		}
	}()
	return context.AfterFunc(w.ctx, w.fire)
}

// unwatch ends the watch. The ctx is asked where it has it in its list, and may be of a
// foreign type that panics. Then it keeps what is over and tells nobody, and there is
// nobody here to tell of the panic.
func (w *watcher[T]) unwatch(stop func() bool) {
	defer func() { _ = recover() }()
	stop()
}

// end takes w out of the table: who is added from now on gets another. The mutex is held.
func (w *watcher[T]) end() {
	w.over = true
	delete(w.table.by, w.done)
}

// unlink takes k out. The mutex is held.
func (w *watcher[T]) unlink(k *Link[T]) {
	if k.before != nil {
		k.before.after = k.after
	} else {
		w.head = k.after
	}
	if k.after != nil {
		k.after.before = k.before
	} else {
		w.tail = k.before
	}
	*k = Link[T]{} // the first one is kept as long as the watcher
}

// fire tells all.
func (w *watcher[T]) fire() {
	done := false
	defer func() {
		if !done {
			w.fire()
		}
	}()
	for {
		of, ok := w.next()
		if !ok {
			done = true
			return
		}
		of.Expire(w.ctx)
	}
}

// next takes out the waiter that is to be told next.
func (w *watcher[T]) next() (of T, ok bool) {
	w.table.mu.Lock()
	defer w.table.mu.Unlock()
	if !w.over {
		w.end()
	}
	k := w.head
	if k == nil {
		return of, false
	}
	of = k.of
	w.unlink(k)
	return of, true
}
