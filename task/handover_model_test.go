package task_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/loop"
	"asyncsync.dev/task"
)

// A random program locks, waits, signals, sets and cancels, and a slow model says
// what each step must have come to once nobody can move any more. In a bubble
// synctest.Wait is that moment.
//
// What happens within one step at the same time (a cancellation and what it races
// with) is ordered in the model as it is called, and cancellations come before
// hand-overs: that is what Lock and Cond.Wait promise.

// modelRounds is how many programs are run; MODEL_ROUNDS makes it more.
func modelRounds(t *testing.T) int {
	if s := os.Getenv("MODEL_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		return n
	}
	return 150
}

// A party is one that runs what it is told, one thing after another. Who it is, and
// so how it waits, differs.
type party struct {
	id     int
	orders chan order
	cancel context.CancelCauseFunc // of what it does now

	// Of the model.
	state partyState
	over  bool // the ctx of what it waits in has ended
}

type partyState int

const (
	idle      partyState = iota
	locking              // in the line of the mutex
	holding              // has it
	inCond               // in the line of the cond
	relocking            // was chosen, or cancelled, and is in the line of the mutex again
	forEvent
)

type order struct {
	what string
	ctx  context.Context
}

// A model is what all of it should be now.
type model struct {
	owner   *party
	line    []*party // for the mutex, the first first
	cond    []*party
	chosen  map[*party]bool // of those that relock: by a signal
	waiting []*party        // for the event
	set     bool
	log     []string // what has ended, and how, in the order in which it must
}

func (m *model) end(p *party, what string, err bool) {
	m.log = append(m.log, fmt.Sprintf("%d %s %v", p.id, what, err))
}

func (m *model) without(line []*party, p *party) []*party {
	var left []*party
	for _, q := range line {
		if q != p {
			left = append(left, q)
		}
	}
	return left
}

// free hands the mutex on.
func (m *model) free() {
	m.owner = nil
	for m.owner == nil && len(m.line) > 0 {
		p := m.line[0]
		m.line = m.line[1:]
		switch {
		case p.state == locking && p.over:
			p.state, p.over = idle, false
			m.end(p, "lock", true)
		default:
			m.give(p)
		}
	}
}

// give gives p the mutex.
func (m *model) give(p *party) {
	m.owner = p
	if p.state == relocking {
		cancelled := p.over
		m.end(p, "cond", cancelled)
		chosen := m.chosen[p]
		delete(m.chosen, p)
		p.over = false
		p.state = holding
		if cancelled && chosen {
			m.signal(1)
		}
		return
	}
	p.state = holding
	m.end(p, "lock", false)
}

func (m *model) signal(n int) {
	for ; n != 0 && len(m.cond) > 0; n-- {
		p := m.cond[0]
		m.cond = m.cond[1:]
		p.state = relocking
		m.chosen[p] = true
		m.enter(p)
	}
}

func (m *model) enter(p *party) {
	if m.owner == nil {
		m.give(p)
	} else {
		m.line = append(m.line, p)
	}
}

func (m *model) cancel(p *party) {
	p.over = true
	switch p.state {
	case locking:
		m.line = m.without(m.line, p)
		p.state, p.over = idle, false
		m.end(p, "lock", true)
	case inCond:
		m.cond = m.without(m.cond, p)
		p.state = relocking
		m.enter(p)
	case forEvent:
		m.waiting = m.without(m.waiting, p)
		p.state, p.over = idle, false
		m.end(p, "event", true)
	}
}

// TestHandOverModel compares random programs with the model.
func TestHandOverModel(t *testing.T) {
	guard(t)
	for seed := range modelRounds(t) {
		ok := t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(uint64(seed), 7))) })
		})
		if !ok {
			return
		}
	}
}

func runModel(t *testing.T, r *rand.Rand) {
	var (
		m task.Mutex
		c = task.NewCond(&m)
		e = &task.Event{}
		j journal
	)
	// do runs what p is ordered to. inside says that somebody has the mutex.
	inside := 0
	do := func(p *party, o order) {
		enter := func() {
			if inside++; inside != 1 {
				t.Errorf("%d have the mutex", inside)
			}
		}
		switch o.what {
		case "lock":
			err := m.Lock(o.ctx)
			if err == nil {
				enter()
			}
			check(t, err)
			j.add(fmt.Sprintf("%d lock %v", p.id, err != nil))
		case "unlock":
			inside--
			m.Unlock()
		case "cond":
			inside--
			err := c.Wait(o.ctx)
			enter()
			check(t, err)
			j.add(fmt.Sprintf("%d cond %v", p.id, err != nil))
		case "event":
			err := e.Wait(o.ctx)
			check(t, err)
			j.add(fmt.Sprintf("%d event %v", p.id, err != nil))
		}
	}
	parties, dismiss := newParties(t, do)
	w := &model{chosen: map[*party]bool{}}
	tell := func(p *party, what string) {
		ctx, cancel := context.WithCancelCause(context.Background())
		p.cancel = cancel
		p.orders <- order{what, ctx}
	}
	compare := func(what string) {
		synctest.Wait()
		require.Equal(t, sorted(w.log), sorted(j.read()), what)
		require.Equal(t, w.owner != nil, m.Locked(), what)
		require.Equal(t, w.set, e.IsSet(), what)
	}
	for step := range 60 {
		p := parties[r.IntN(len(parties))]
		what := fmt.Sprintf("step %d, party %d", step, p.id)
		switch p.state {
		case idle:
			if r.IntN(4) == 0 {
				what += ": event"
				tell(p, "event")
				if w.set {
					w.end(p, "event", false)
				} else {
					p.state = forEvent
					w.waiting = append(w.waiting, p)
				}
				break
			}
			what += ": lock"
			tell(p, "lock")
			p.state = locking
			w.enter(p)
		case holding:
			switch r.IntN(4) {
			case 0:
				what += ": cond"
				tell(p, "cond")
				p.state = inCond
				w.cond = append(w.cond, p)
				w.free()
			case 1: // the lock goes to one whose ctx ends at that moment
				what += ": unlock and cancel"
				var q *party
				if len(w.line) > 0 {
					q = w.line[0]
				}
				// On the goroutine of the test, so that the order is known.
				inside--
				if q != nil {
					q.cancel(errCause)
					q.over = true
				}
				m.Unlock()
				p.state = idle
				w.free()
			default:
				what += ": unlock"
				tell(p, "unlock")
				p.state = idle
				w.free()
			}
		default:
			switch r.IntN(3) {
			case 0:
				what += ": cancel"
				p.cancel(errCause)
				if !p.over {
					w.cancel(p)
				}
			case 1:
				n := r.IntN(3)
				what += fmt.Sprint(": signal ", n)
				c.Signal(n)
				w.signal(n)
			default:
				if r.IntN(6) == 0 {
					what += ": set"
					e.Set()
					w.set = true
					for _, q := range w.waiting {
						q.state = idle
						w.end(q, "event", false)
					}
					w.waiting = nil
				}
			}
		}
		compare(what)
	}
	// Everybody comes home.
	e.Set()
	w.set = true
	for _, q := range w.waiting {
		q.state = idle
		w.end(q, "event", false)
	}
	w.waiting = nil
	c.Broadcast()
	w.signal(-1)
	compare("the end")
	for w.owner != nil {
		tell(w.owner, "unlock")
		w.owner.state = idle
		w.free()
		compare("the end")
	}
	for _, p := range parties {
		require.Equal(t, idle, p.state)
	}
	dismiss()
}

func check(t *testing.T, err error) {
	if err != nil && !errors.Is(err, errCause) {
		t.Error(err)
	}
}

// sorted orders what ended within one step: on goroutines it is not said which of
// them writes first.
func sorted(log []string) map[string]int {
	counts := map[string]int{}
	for _, l := range log {
		counts[l]++
	}
	return counts
}

// newParties returns some of each kind: goroutines, threads, and tasks of one thread
// loop.
func newParties(t *testing.T, do func(*party, order)) (parties []*party, dismiss func()) {
	work := func(p *party, next func() (order, bool)) {
		for {
			o, ok := next()
			if !ok {
				return
			}
			do(p, o)
		}
	}
	var ended []chan struct{}
	add := func(run func(p *party, done func())) {
		p := &party{id: len(parties), orders: make(chan order)}
		parties = append(parties, p)
		end := make(chan struct{})
		ended = append(ended, end)
		run(p, func() { close(end) })
	}
	fromChannel := func(p *party) func() (order, bool) {
		return func() (order, bool) { o, ok := <-p.orders; return o, ok }
	}
	for range 2 {
		add(func(p *party, done func()) {
			go func() { defer done(); work(p, fromChannel(p)) }()
		})
	}
	for range 2 {
		add(func(p *party, done func()) {
			go func() {
				defer done()
				ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background())
				assertNoError(t, toThread(ctx, func(context.Context) { work(p, fromChannel(p)) }))
				assertNoError(t, tsc.Close())
			}()
		})
	}
	b := loop.NewThread()
	var quit task.Event
	looped := make(chan struct{})
	go func() {
		defer close(looped)
		_, err := loop.Run(context.Background(), b, func(ctx context.Context) (int, error) { return 0, quit.Wait(ctx) })
		assertNoError(t, err)
	}()
	for range 3 {
		add(func(p *party, done func()) {
			err := b.Spawn(context.Background(), func(ctx context.Context) {
				defer done()
				work(p, func() (order, bool) {
					o, ok, err := task.Recv(context.WithoutCancel(ctx), p.orders)
					return o, ok && err == nil
				})
			})
			assertNoError(t, err)
		})
	}
	return parties, func() {
		for i, p := range parties {
			close(p.orders)
			<-ended[i]
		}
		quit.Set()
		<-looped
	}
}

func assertNoError(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}
