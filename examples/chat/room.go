package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
)

// A message is what somebody has said. Numbers count from 1 without a gap.
type message struct {
	Number int    `json:"number"`
	From   string `json:"from"`
	Text   string `json:"text"`
}

func (m message) String() string { return fmt.Sprintf("%d %s: %s", m.Number, m.From, m.Text) }

// What say returns.
var (
	errClosing = errors.New("the server is stopping")
	errText    = errors.New("a message has 1 to 1000 bytes, in one line")
	errName    = errors.New("a name has 1 to 20 letters and digits")
	errTaken   = errors.New("somebody else has that name")
)

// remembered is how many messages the room has at hand. The journal has all.
const remembered = 10000

// A room is where all clients meet. Only tasks of the loop touch it, one at a
// time, and no other task sees the middle of what a task does between two
// waits. So it needs no lock.
type room struct {
	thread  *asyncsync.ThreadSensitiveContext // of the journal
	journal *journal                          // for that thread

	recent []message       // the last ones
	last   int             // the number of the last one
	names  map[string]bool // of those who are here over TCP

	pending []*entry // said, and not yet in the journal
	stirred bell     // pending or closing have changed
	more    bell     // recent, stopping or closed have changed

	stopping bool // nobody should wait for messages that may take long to come
	closing  bool // say refuses
	closed   bool // no message will follow

	threads map[int]int // the OS threads that the room was seen on
}

// An entry is a message on its way into the journal.
type entry struct {
	message
	done task.Event // then err is why it was not stored
	err  error
}

// A bell wakes all who wait for it to ring. It is a [task.Cond] for those who need no
// [task.Mutex], being on one thread.
type bell struct{ next *task.Event }

// wait waits for the next ring. Between the check of the condition and wait
// there must be no other wait, or a ring could be missed.
func (b *bell) wait(ctx context.Context) error {
	if b.next == nil {
		b.next = new(task.Event)
	}
	return b.next.Wait(ctx)
}

func (b *bell) ring() {
	if b.next != nil {
		b.next.Set()
		b.next = nil
	}
}

// openRoom opens the journal at path, on the thread of messages.
func openRoom(ctx context.Context, path string, thread *asyncsync.ThreadSensitiveContext) (*room, error) {
	r := &room{thread: thread, names: map[string]bool{clockName: true}, threads: map[int]int{}}
	var err error
	r.recent, err = asyncsync.ToThread(ctx, func(context.Context) (all []message, err error) {
		r.journal, all, err = openJournal(path)
		return all, err
	}, asyncsync.On(thread), asyncsync.Named("open journal"))
	if err != nil {
		return nil, err
	}
	r.last = len(r.recent)
	r.forget()
	return r, nil
}

// close closes the journal, after keep has ended.
func (r *room) close(ctx context.Context) error {
	_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		return 0, r.journal.close()
	}, asyncsync.On(r.thread), asyncsync.Named("close journal"))
	return err
}

// say stores a message, and returns it when it is stored. Once the room has the
// message it is stored even if ctx ends, and say waits for that.
func (r *room) say(ctx context.Context, from, text string) (message, error) {
	r.seen()
	text = strings.TrimSpace(text)
	switch {
	case !validName(from):
		return message{}, errName
	case text == "" || len(text) > 1000 || strings.ContainsFunc(text, unicode.IsControl):
		return message{}, errText
	case r.closing:
		return message{}, errClosing
	case ctx.Err() != nil:
		return message{}, context.Cause(ctx)
	}
	e := &entry{message: message{From: from, Text: text}}
	r.pending = append(r.pending, e)
	r.stirred.ring()
	return task.Shield(ctx, func(ctx context.Context) (message, error) {
		if err := e.done.Wait(ctx); err != nil {
			return message{}, err
		}
		return e.message, e.err
	})
}

func validName(name string) bool {
	return name != "" && len(name) <= 20 && !strings.ContainsFunc(name, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c)
	})
}

// keep is the task that writes messages to the journal and then passes them to
// all clients. It ends when the room is closing and has stored what it has
// accepted.
//
// Messages that arrive while the journal works are written together in its next
// call: so a disk that takes ten milliseconds does not limit the server to a
// hundred messages a second.
func (r *room) keep(ctx context.Context) error {
	var batch []*entry // with the journal
	// However this ends, also with a panic, nobody waits for it any more.
	defer func() {
		r.closing, r.closed = true, true
		for _, e := range append(batch, r.pending...) {
			e.err = errClosing
			e.done.Set()
		}
		r.pending = nil
		r.more.ring()
	}()
	for {
		for len(r.pending) == 0 {
			if r.closing {
				return nil
			}
			if err := r.stirred.wait(ctx); err != nil {
				return err
			}
		}
		batch, r.pending = r.pending, nil
		var messages []message
		for i, e := range batch {
			e.Number = r.last + 1 + i
			messages = append(messages, e.message)
		}
		_, err := asyncsync.ToThread(ctx, func(context.Context) (int, error) {
			return 0, r.journal.append(messages)
		}, asyncsync.On(r.thread), asyncsync.Named("append to journal"))
		r.seen()
		if err == nil {
			r.recent = append(r.recent, messages...)
			r.last += len(messages)
			r.forget()
			r.more.ring()
		}
		for _, e := range batch {
			e.err = err
			e.done.Set()
		}
		batch = nil
	}
}

// forget keeps recent from growing for ever.
func (r *room) forget() {
	if n := len(r.recent); n > 2*remembered {
		r.recent = append([]message(nil), r.recent[n-remembered:]...)
	}
}

// since returns the messages after a number that are at hand, and how many are not.
func (r *room) since(after int) (_ []message, missed int) {
	first := r.last - len(r.recent) // the number before the first at hand
	missed = max(0, first-after)
	from := min(max(after, first), r.last)
	return r.recent[from-first:], missed
}

// seen notes the thread that the room is on.
func (r *room) seen() { r.threads[threadID()]++ }
