package sqlthread

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
	"asyncsync.dev/task"
)

// Pin runs fn, on the goroutine of the caller, with a ctx in which [Conn] returns one
// connection of db: so all that is done with that connection is done on one thread.
// The first call of Conn takes the connection, and none is taken without. When fn has
// ended, by a return, a panic or [runtime.Goexit], its ctx ends, and the connection is
// given back to db; Pin returns the error of fn. It panics if an argument is nil.
//
// A query, and rows or a transaction left open, that have the ctx of fn end with it:
// Pin waits for that. With another ctx they keep Pin from returning, as they keep
// [sql.Conn.Close]. A task that outlives fn must not use the connection: it has a Pin
// of its own.
//
// A Pin within another takes a connection of its own. If db has no second one, the
// inner Pin waits for that until ctx ends. So do the methods of db itself.
//
// Pin is for requests and jobs; see the package documentation for a handler. The idea
// is that of asgiref's ThreadSensitiveContext, with the thread of a connection.
func Pin(ctx context.Context, db *sql.DB, fn func(context.Context) error) error {
	switch {
	case ctx == nil:
		panic("sqlthread: Pin: nil ctx")
	case db == nil:
		panic("sqlthread: Pin: nil DB")
	case fn == nil:
		panic("sqlthread: Pin: nil function")
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &pin{db: db}
	defer func() {
		cancel() // ends what the connection is used for
		p.end()
	}()
	return fn(context.WithValue(ctx, pinKey{db}, p))
}

// Conn returns the connection of db that belongs to the innermost [Pin] of ctx. The
// first call waits for it, as [sql.DB.Conn] does: when ctx ends first it returns the
// cause. If it fails the next call tries again. All calls return the same connection,
// which may be used from any goroutine, and must not be closed.
//
// After the function of Pin has ended it returns an error that matches
// [asyncsync.ErrClosed]. It panics if there is no Pin for db.
func Conn(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	if ctx == nil {
		panic("sqlthread: Conn: nil ctx")
	}
	p, _ := ctx.Value(pinKey{db}).(*pin)
	if p == nil {
		panic("sqlthread: Conn: the ctx is of no function that Pin runs for this DB: call Pin first")
	}
	if c, err := p.taken(); c != nil || err != nil {
		return c, err
	}
	// The library knows what this wait is for, so a thread serves in it.
	if err := p.taking.Lock(ctx); err != nil {
		return nil, err
	}
	defer p.taking.Unlock()
	if c, err := p.taken(); c != nil || err != nil {
		return c, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
			err = core.Cause(ctx) // database/sql looks at Err
		}
		return nil, err
	}
	return p.keep(c)
}

type pinKey struct{ db *sql.DB }

// A pin is the connection of a Pin.
type pin struct {
	db     *sql.DB
	taking task.Mutex // held by who takes the connection

	mu   sync.Mutex // guards the rest
	conn *sql.Conn  // nil if it was not taken
	over bool
}

// taken returns the connection if there is one.
func (p *pin) taken() (*sql.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, fmt.Errorf("sqlthread: Conn: %w: the function that Pin ran has ended; what outlives it calls Pin itself", asyncsync.ErrClosed)
	}
	return p.conn, nil
}

// keep has c be the connection, or closes it if it comes too late.
func (p *pin) keep(c *sql.Conn) (*sql.Conn, error) {
	p.mu.Lock()
	if !p.over {
		p.conn = c
	}
	p.mu.Unlock()
	kept, err := p.taken()
	if err != nil {
		_ = c.Close()
	}
	return kept, err
}

// end gives the connection back. It does not wait for a goroutine that is taking it.
func (p *pin) end() {
	p.mu.Lock()
	c := p.conn
	p.conn, p.over = nil, true
	p.mu.Unlock()
	if c != nil {
		_ = c.Close() // it says whether somebody has closed it already
	}
}
