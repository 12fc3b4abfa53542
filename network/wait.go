package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"sync"
	"time"

	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Read reads from c into b like c.Read, until ctx ends. Then it returns the
// cause. Bytes that have been read are returned even if ctx ends at that
// moment: no byte is lost. If ctx has already ended, Read reads nothing.
//
// Read uses c's read deadline, which belongs to this package: after an
// interruption c has no deadline. If a deadline that somebody else has set
// passes, it ends Read as it ends c.Read. Several Reads of one c do not disturb
// each other. If c does not support deadlines, ctx cannot interrupt Read, which
// then waits for c.Read.
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
// What Read says of deadlines holds here for the write deadline.
func Write(ctx context.Context, c net.Conn, b []byte) (int, error) {
	checkCtx(ctx, "Write")
	checkConn(c == nil, "Write")
	n, err := wait(ctx, direction{c, 'w'}, c.SetWriteDeadline, func() (int, error) { return c.Write(b) }, nil)
	if n == len(b) && isInterrupted(err) {
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
	return p.n, p.addr, plain(err)
}

// WriteTo is [Write] for packets: it sends b to addr, whole or not at all.
func WriteTo(ctx context.Context, c net.PacketConn, b []byte, addr net.Addr) (int, error) {
	checkCtx(ctx, "WriteTo")
	checkConn(c == nil, "WriteTo")
	n, err := wait(ctx, direction{c, 'w'}, c.SetWriteDeadline, func() (int, error) { return c.WriteTo(b, addr) }, nil)
	return n, plain(err)
}

// Accept waits for the next connection to l like l.Accept, until ctx ends. Then
// it returns the cause. A connection that arrives at that moment is returned,
// or left for the next Accept. Several Accepts of one l do not disturb each
// other.
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
		return task.Await(ctx, func(context.Context) (net.Conn, error) { return l.Accept() })
	}
	c, err := wait(ctx, direction{l, 'a'}, d.SetDeadline, l.Accept, func(c net.Conn) { _ = c.Close() })
	return c, plain(err)
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

// wait runs op until ctx ends. If nothing waits for the result of op any more,
// wait passes it to forgo, which may be nil.
func wait[R any](ctx context.Context, on direction, set func(time.Time) error, op func() (R, error), forgo func(R)) (R, error) {
	var got R
	came, returned := false, false
	defer func() {
		// On a thread, the Goexit of a served call may end the wait.
		if came && !returned && forgo != nil {
			forgo(got)
		}
	}()
	r, err := task.Await(ctx, func(ctx context.Context) (R, error) {
		r, err := run(ctx, on, set, op)
		if err == nil {
			got, came = r, true
		}
		return r, err
	})
	returned = true
	return r, err
}

// run runs op on the calling goroutine, which op blocks.
//
// The end of ctx sets a deadline in the past, which must be gone before another
// operation begins to wait. So the operation that has set it removes it again
// when its op has returned. Other operations that it has interrupted wait for
// that and begin again.
func run[R any](ctx context.Context, on direction, set func(time.Time) error, op func() (R, error)) (R, error) {
	l := lines.enter(on)
	defer lines.leave(on, l)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		l.interrupt(set)
	})
	var over bool
	finish := func() (cut bool) {
		if over = true; stop() {
			return false
		}
		<-done // else it could set the deadline after this
		l.restore(set)
		return true
	}
	defer func() { // also when op panics
		if !over {
			finish()
		}
	}()
	for {
		began := l.await(ctx)
		r, err := op()
		hit := err != nil && errors.Is(err, os.ErrDeadlineExceeded)
		if hit && ctx.Err() == nil && l.interruptedSince(began) {
			continue // it was meant for another
		}
		cut := finish()
		if hit && (cut || ctx.Err() != nil) {
			// Even if ctx has just ended, the deadline may be that of another
			// operation.
			err = interrupted{core.Cause(ctx)}
		}
		return r, err
	}
}

// A direction is what has one deadline: reads of a connection, its writes, or
// what a listener accepts.
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

// A line is the operations of one direction that are under way.
type line struct {
	users int // guarded by lines

	// mu guards the rest. It is held while a deadline is set, which does not block,
	// so that setting a deadline and removing one cannot overtake each other.
	mu     sync.Mutex
	count  uint64        // of interruptions
	active int           // interruptions that were not taken back
	quiet  chan struct{} // closed when active is 0 again; nil while it is
}

func (t *lineTable) enter(d direction) *line {
	if !reflect.TypeOf(d.of).Comparable() {
		return &line{users: 1} // cannot be found by others
	}
	t.Lock()
	defer t.Unlock()
	l := t.of[d]
	if l == nil {
		l = &line{}
		t.of[d] = l
	}
	l.users++
	return l
}

func (t *lineTable) leave(d direction, l *line) {
	t.Lock()
	defer t.Unlock()
	if l.users--; l.users == 0 && reflect.TypeOf(d.of).Comparable() {
		delete(t.of, d)
	}
}

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)

func (l *line) interrupt(set func(time.Time) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if l.active++; l.active == 1 {
		l.quiet = make(chan struct{})
	}
	_ = set(longAgo) // of one that is closed op tells
}

func (l *line) restore(set func(time.Time) error) {
	l.mu.Lock()
	l.active--
	quiet := l.quiet
	if l.active == 0 {
		_ = set(time.Time{})
		l.quiet = nil
	}
	active := l.active
	l.mu.Unlock()
	if active == 0 {
		close(quiet)
	}
}

// await waits until no operation interrupts the line, or ctx ends. It returns
// the count.
func (l *line) await(ctx context.Context) uint64 {
	for {
		l.mu.Lock()
		count, quiet := l.count, l.quiet
		l.mu.Unlock()
		if quiet == nil {
			return count
		}
		select {
		case <-quiet:
		case <-ctx.Done():
			return count
		}
	}
}

func (l *line) interruptedSince(count uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count != count
}

func checkConn(isNil bool, what string) {
	if isNil {
		panic("network: " + what + " with a nil connection or listener")
	}
}
