package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"sync"
	"syscall"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Read reads from c into b like c.Read, until ctx ends. Then it returns the
// cause. Bytes that have been read are returned even if ctx ends at that
// moment: no byte is lost. If ctx has already ended, Read reads nothing.
//
// Read uses c's read deadline, which belongs to this package: if ctx ends
// during Read, c has no deadline afterwards, even if Read has succeeded. If a
// deadline that somebody else has set passes, it ends Read as it ends c.Read.
// Several Reads of one c take turns, and do not disturb each other. (A c that
// cannot be compared, such as a struct with a slice, is not known again: pass a
// pointer to it.) If c does not support deadlines, ctx cannot interrupt Read,
// which then waits for c.Read.
//
// If c has a method HandshakeContext, as a [crypto/tls.Conn] does, Read calls it
// first. Reads and Writes that want to shake hands take turns. If ctx ends during
// the handshake, crypto/tls closes the connection, because it cannot be used any
// more. If ctx ends while another operation shakes hands, c is left alone.
func Read(ctx context.Context, c net.Conn, b []byte) (int, error) {
	checkCtx(ctx, "Read")
	checkConn(c == nil, "Read")
	n, err := wait(ctx, direction{c, 'r'}, c.SetReadDeadline, func() (int, error) { return c.Read(b) }, nil)
	if n > 0 && isInterrupted(err) {
		err = nil
	}
	return n, plain(err)
}

// Write writes b to c like c.Write, until ctx ends. Then it returns the cause
// and the number of bytes that were written. If that is not all of b, the
// stream has been cut in the middle; a TLS connection cannot be written to any
// more.
//
// What Read says of deadlines holds here for the write deadline, and what it says
// of handshakes holds here too. No other Write gets between the bytes of b.
func Write(ctx context.Context, c net.Conn, b []byte) (int, error) {
	checkCtx(ctx, "Write")
	checkConn(c == nil, "Write")
	n, err := wait(ctx, direction{c, 'w'}, c.SetWriteDeadline, func() (int, error) { return c.Write(b) }, nil)
	if n > 0 && n == len(b) && isInterrupted(err) {
		err = nil
	}
	return n, plain(err)
}

// A packet is what ReadFrom has read.
type packet struct {
	n    int
	addr net.Addr
}

// ReadFrom is [Read] for packets: it reads one packet into b and returns its
// sender.
func ReadFrom(ctx context.Context, c net.PacketConn, b []byte) (int, net.Addr, error) {
	checkCtx(ctx, "ReadFrom")
	checkConn(c == nil, "ReadFrom")
	p, err := wait(ctx, direction{c, 'r'}, c.SetReadDeadline, func() (packet, error) {
		n, addr, err := c.ReadFrom(b)
		return packet{n, addr}, err
	}, nil)
	if p.n > 0 && isInterrupted(err) {
		err = nil
	}
	return p.n, p.addr, plain(err)
}

// WriteTo is [Write] for packets: it sends b to addr, whole or not at all.
func WriteTo(ctx context.Context, c net.PacketConn, b []byte, addr net.Addr) (int, error) {
	checkCtx(ctx, "WriteTo")
	checkConn(c == nil, "WriteTo")
	n, err := wait(ctx, direction{c, 'w'}, c.SetWriteDeadline, func() (int, error) { return c.WriteTo(b, addr) }, nil)
	if n > 0 && n == len(b) && isInterrupted(err) {
		err = nil
	}
	return n, plain(err)
}

// Accept waits for the next connection to l like l.Accept, until ctx ends. Then
// it returns the cause. A connection that arrives at that moment is returned,
// or left for the next Accept. Several Accepts of one l take turns, and do not
// disturb each other.
//
// Accept uses l's SetDeadline method, which the listeners of package net have.
// What Read says of deadlines holds for it. If l has no such method, like a
// listener of crypto/tls, and ctx can end, Accept returns an error that matches
// [errors.ErrUnsupported]: accept from the listener below it, and wrap the
// connection.
func Accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	checkCtx(ctx, "Accept")
	checkConn(l == nil, "Accept")
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok {
		if ctx.Done() != nil {
			return nil, fmt.Errorf("network: Accept: a ctx cannot interrupt Accept of a %T, which has no SetDeadline: %w", l, errors.ErrUnsupported)
		}
		return await(ctx, func(_ context.Context, got func(net.Conn)) (net.Conn, error) {
			c, err := l.Accept()
			if err == nil {
				got(c)
			}
			return c, err
		}, discard(ctx, "network.Accept"))
	}
	c, err := wait(ctx, direction{l, 'a'}, d.SetDeadline, l.Accept, discard(ctx, "network.Accept"))
	return c, plain(err)
}

// discard returns a function that closes a connection which nobody gets. It does not
// wait: who calls it may be unwinding a thread, where a Close that blocks would hold up
// others, and a Goexit of Close would take the place of a panic.
func discard(ctx context.Context, what string) func(net.Conn) {
	return func(c net.Conn) { go dropUnheard(ctx, what, func() { _ = c.Close() }) }
}

// interrupted is the error of an operation that its ctx has ended.
type interrupted struct{ cause error }

func (i interrupted) Error() string { return i.cause.Error() }

func isInterrupted(err error) bool {
	_, yes := err.(interrupted)
	return yes
}

// plain returns err as the caller should see it.
func plain(err error) error {
	if i, ok := err.(interrupted); ok {
		return i.cause
	}
	return err
}

// wait shakes hands if that is needed, and then runs op, until ctx ends. If nothing
// waits for the result of op any more, wait passes it to forgo, which may be nil.
func wait[R any](ctx context.Context, on direction, set func(time.Time) error, op func() (R, error), forgo func(R)) (R, error) {
	return await(ctx, func(ctx context.Context, got func(R)) (R, error) {
		if err := shakeHands(ctx, on.of); err != nil {
			var none R
			return none, err
		}
		return run(ctx, on, set, op, got)
	}, forgo)
}

// shakeHands calls c's HandshakeContext, if c has one, which does nothing once the
// handshake is complete.
//
// The first operation of such a connection would shake hands itself, whichever it
// is. Then a Write reads, so that a write deadline does not end it. A deadline that
// did end the handshake would fail all operations for good. And a second operation
// would wait for a mutex of c, which no deadline ends, while the deadline that is to
// end it disturbs the first one. So the handshake comes before the operation, where
// only the end of ctx ends it, and those who want to shake hands take turns, where
// ctx ends the wait for one's turn and c is not touched.
func shakeHands(ctx context.Context, c any) error {
	h, ok := c.(interface{ HandshakeContext(context.Context) error })
	if !ok {
		return nil
	}
	leave, err := lines.wait(ctx, direction{c, 'h'})
	if err != nil {
		return err
	}
	defer leave()
	err = h.HandshakeContext(ctx)
	if err != nil && core.Ended(ctx) != nil {
		return interrupted{core.Cause(ctx)}
	}
	return err
}

// await is [task.Await] of fn, which says what it has got as soon as it has. If
// it neither returns that nor an error, await passes it to forgo.
func await[R any](ctx context.Context, fn func(ctx context.Context, got func(R)) (R, error), forgo func(R)) (R, error) {
	h := handover[R]{forgo: forgo}
	returned := false
	defer func() {
		if !returned { // fn has panicked, or a Goexit has passed through
			h.leave()
		}
	}()
	r, err := task.Await(ctx, func(ctx context.Context) (R, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		h.begin(cancel)
		return fn(ctx, h.deliver)
	})
	returned = true
	return r, err
}

// A handover takes what fn has got to its waiter. The waiter may leave before fn has
// got it, and while fn still runs: a Goexit that a thread serves during the wait
// ends the wait when fn has returned, but a second one ends it at once. So the one
// that comes second, fn or the waiter that leaves, passes what was got to forgo.
type handover[R any] struct {
	forgo func(R) // nil for nothing

	mu   sync.Mutex // a leaf; guards the rest
	end  func()     // ends the ctx of fn; nil before fn begins
	left bool       // nobody waits
	came bool
	got  R
}

// begin says that fn begins, and that end ends its ctx.
func (h *handover[R]) begin(end func()) {
	h.mu.Lock()
	h.end = end
	left := h.left
	h.mu.Unlock()
	if left {
		end()
	}
}

// deliver says what fn has got.
func (h *handover[R]) deliver(r R) {
	h.mu.Lock()
	h.got, h.came = r, true
	left := h.left
	h.mu.Unlock()
	if left && h.forgo != nil {
		h.forgo(r)
	}
}

// leave says that nobody waits any more. It ends the ctx of fn, so that fn does not take
// what the next operation could have.
func (h *handover[R]) leave() {
	h.mu.Lock()
	h.left = true
	got, came, end := h.got, h.came, h.end
	h.mu.Unlock()
	if end != nil {
		end()
	}
	if came && h.forgo != nil {
		h.forgo(got)
	}
}

// run runs op on the calling goroutine, which op blocks.
//
// The end of ctx sets a deadline in the past, which ends op. All operations of
// the direction share the deadline, so they take turns: else one that is to be
// interrupted would interrupt the others, and a Write that has to begin again
// would find the bytes of another in the middle of its own.
func run[R any](ctx context.Context, on direction, set func(time.Time) error, op func() (R, error), got func(R)) (R, error) {
	leave, err := lines.wait(ctx, on)
	if err != nil {
		var none R
		return none, err
	}
	defer leave()
	var setting ending
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		setting.of(func() { _ = set(longAgo) }) // of one that is closed op tells
	})
	stopped := false
	finish := func() (cut bool) {
		if stopped = true; stop() {
			return false
		}
		<-done // else it could set the deadline after this
		_ = set(time.Time{})
		return true
	}
	defer func() { // also when op panics
		if !stopped {
			finish()
			setting.unheard(ctx, "network: SetDeadline")
		}
	}()
	r, err := op()
	if err == nil {
		got(r)
	}
	cut := finish()
	setting.raise()
	if cut && isTimeout(err) {
		err = interrupted{core.Cause(ctx)}
	}
	return r, err
}

// isTimeout reports whether err says that a deadline has passed: as package os says it, or
// by Timeout alone, as connections of other packages may. An ETIMEDOUT of the system is
// not about a deadline, but says once that the connection has failed.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var n net.Error
	var system syscall.Errno
	return errors.As(err, &n) && n.Timeout() && !errors.As(err, &system)
}

// A direction is what takes turns: reads of a connection, its writes, its
// handshake, or what a listener accepts. Each but the handshake has one deadline.
type direction struct {
	of  any
	way byte
}

// lines holds the lines that are in use.
var lines = lineTable{of: map[direction]*line{}}

type lineTable struct {
	sync.Mutex // a leaf
	of         map[direction]*line
}

// A line is the operations of one direction, of which one is under way.
type line struct {
	turn  chan struct{} // has a token while none is
	users int           // guarded by lines
	alone bool          // nobody else finds it; never changes
}

// wait waits for the turn of an operation in the direction d, which calls leave when
// it is over. If ctx ends before the operation can begin, wait returns that as an
// interruption.
func (t *lineTable) wait(ctx context.Context, d direction) (leave func(), err error) {
	l, has, begins := t.enter(d), false, false
	out := func() {
		if has {
			l.turn <- struct{}{}
		}
		t.leave(d, l)
	}
	defer func() {
		if !begins { // also if a foreign ctx fails
			out()
		}
	}()
	select {
	case <-l.turn:
		has = true
	case <-ctx.Done():
		return nil, interrupted{core.Cause(ctx)}
	}
	if cause := core.Ended(ctx); cause != nil {
		return nil, interrupted{cause} // while it waited
	}
	begins = true
	return out, nil
}

func (t *lineTable) enter(d direction) *line {
	// The value decides: a type that can be compared may have a field of one that
	// cannot.
	alone := !reflect.ValueOf(d.of).Comparable()
	t.Lock()
	defer t.Unlock()
	var l *line
	if !alone {
		l = t.of[d]
	}
	if l == nil {
		l = &line{turn: make(chan struct{}, 1), alone: alone}
		l.turn <- struct{}{}
		if !alone {
			t.of[d] = l
		}
	}
	l.users++
	return l
}

func (t *lineTable) leave(d direction, l *line) {
	t.Lock()
	defer t.Unlock()
	if l.users--; l.users == 0 && !l.alone {
		delete(t.of, d)
	}
}

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)

func checkConn(isNil bool, what string) {
	if isNil {
		panic("network: " + what + " with a nil connection or listener")
	}
}
