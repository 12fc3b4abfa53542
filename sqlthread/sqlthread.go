// Package sqlthread gives each connection of a database/sql driver an OS thread
// of its own, on which it is opened, used and closed.
//
// That is for drivers of C libraries that keep state for each thread (errors,
// locales, COM, an embedded engine), and for functions that sit on a thread of
// package asyncsync and call a database which calls back: what they wait for is
// known to the library.
//
//	sqlthread.Register("sqlite3-thread", &sqlite3.SQLiteDriver{})
//	db, err := sql.Open("sqlite3-thread", "file.db")
//
// A program uses the database as ever. database/sql uses a connection for one
// thing at a time, and so does the thread; a transaction, or an sql.Conn, keeps
// its connection, and so its thread.
//
// # What a call costs
//
// Each call of the driver is a call to the thread: see the package documentation
// of asyncsync. Rows are fetched many at a time, the first of them together with
// the query, and closed together with the last: a query with few rows is one
// call, one with a thousand a handful. So the driver is some rows ahead of its
// reader. A program that changes, in the same transaction, what it is just
// reading sees what the driver had read before; do not do that, or read it to the
// end first.
//
// The parameters of a statement are a call each, if the driver checks them
// itself (driver.NamedValueChecker), and so is each use of a pooled connection,
// if it has driver.SessionResetter or driver.Validator.
//
// # What the driver sees
//
// Every optional interface of a connection, a statement and rows is there exactly
// if the driver's own has it, and is called on the thread; driver.Execer and
// driver.Queryer, which are deprecated, are offered as those with a ctx. Bytes
// are copied. Results are asked for their numbers on the thread, where they were
// made. A driver that starts goroutines, to watch a ctx, does so here as well:
// github.com/mattn/go-sqlite3 runs what Exec is given on one of them, unless the
// ctx can never end.
//
// A ctx that ends while a statement runs is the driver's to see. Panics and
// runtime.Goexit in the driver reach the caller.
//
// # Threads
//
// A connection has its thread for as long as it is open. The default pool of
// package asyncsync has 128 of them: sql.DB.SetMaxOpenConns must allow fewer, or
// asyncsync.WithPool name a larger pool. A connection for which there is no
// thread waits until its ctx ends.
package sqlthread

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"

	"asyncsync.dev/asyncsync"
)

//go:generate go run combine.go -o combined.go

// Register makes d available to sql.Open under that name, each connection on a
// thread of its own. The options are those of the contexts of the threads, as for
// asyncsync.Open. It panics if the name is taken, as sql.Register does, or d is
// nil.
func Register(name string, d driver.Driver, opts ...asyncsync.ContextOption) {
	sql.Register(name, Wrap(d, opts...))
}

// Wrap returns a driver whose connections are those of d, each on a thread of its
// own. It has driver.DriverContext if d has. It may be used from any goroutine,
// as often as d. It panics if d is nil.
func Wrap(d driver.Driver, opts ...asyncsync.ContextOption) driver.Driver {
	if d == nil {
		panic("sqlthread: Wrap: the driver is nil")
	}
	w := wrapped{d, opts}
	if dc, ok := d.(driver.DriverContext); ok {
		return wrappedContext{w, dc}
	}
	return w
}

// WrapConnector returns a connector whose connections are those of c, each on a
// thread of its own: for sql.OpenDB. It has io.Closer if c has. Its Driver method
// returns that of c, wrapped. It panics if c is nil.
//
// Connect waits for the thread, and then for the connection to be opened there.
// If ctx ends before that has begun it returns the cause.
func WrapConnector(c driver.Connector, opts ...asyncsync.ContextOption) driver.Connector {
	if c == nil {
		panic("sqlthread: WrapConnector: the connector is nil")
	}
	w := connector{c, opts}
	if closer, ok := c.(io.Closer); ok {
		return struct {
			connector
			io.Closer
		}{w, closer}
	}
	return w
}

// Do runs fn with the driver's own connection, on its thread: with what
// sql.Conn.Raw gives its function. It is for what only the driver can do. fn must
// not keep the connection. Errors, endings and a ctx that ends are as for
// asyncsync.Handle.Do. It panics if rawConn is not of this package.
func Do(ctx context.Context, rawConn any, fn func(context.Context, driver.Conn) error) error {
	c, ok := rawConn.(interface{ own() *conn })
	if !ok {
		panic(fmt.Sprintf("sqlthread: Do: a %T is no connection of this package: wrap its driver", rawConn))
	}
	return c.own().h.Do(ctx, fn)
}

type wrapped struct {
	d    driver.Driver
	opts []asyncsync.ContextOption
}

func (w wrapped) Open(name string) (driver.Conn, error) {
	return open(context.Background(), func(context.Context) (driver.Conn, error) { return w.d.Open(name) }, w.opts)
}

type wrappedContext struct {
	wrapped
	dc driver.DriverContext
}

func (w wrappedContext) OpenConnector(name string) (driver.Connector, error) {
	c, err := w.dc.OpenConnector(name)
	if err != nil {
		return nil, err
	}
	return WrapConnector(c, w.opts...), nil
}

type connector struct {
	c    driver.Connector
	opts []asyncsync.ContextOption
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	return open(ctx, c.c.Connect, c.opts)
}

func (c connector) Driver() driver.Driver { return Wrap(c.c.Driver(), c.opts...) }

// open opens a connection on a new thread.
func open(ctx context.Context, connect func(context.Context) (driver.Conn, error), opts []asyncsync.ContextOption) (driver.Conn, error) {
	has := 0
	h, err := asyncsync.Open(ctx, func(ctx context.Context) (driver.Conn, error) {
		c, err := connect(ctx)
		if err == nil {
			has = connHas(c)
			//lint:ignore SA1019 a driver may have no other
			if _, legacy := c.(driver.Execer); legacy {
				has |= connHasExecerContext
			}
			//lint:ignore SA1019 a driver may have no other
			if _, legacy := c.(driver.Queryer); legacy {
				has |= connHasQueryerContext
			}
		}
		return c, err
	}, driver.Conn.Close, opts...)
	if err != nil {
		return nil, err
	}
	return connOf[has](&conn{h: h}), nil
}
