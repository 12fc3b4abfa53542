// Package sqlthread gives each connection of a database/sql driver an OS thread
// of its own, on which it is opened, used and closed.
//
// It is for drivers of C libraries that keep state for each thread (errors,
// locales, COM, an embedded engine). It is also for functions on a thread of
// package asyncsync that call a database which calls back: the library then
// knows what they wait for.
//
//	sqlthread.Register("sqlite3-thread", &sqlite3.SQLiteDriver{})
//	db, err := sql.Open("sqlite3-thread", "file.db")
//
// A program uses the database as usual. database/sql uses a connection for one
// thing at a time, and so does the thread. A transaction or an sql.Conn keeps
// its connection, and so its thread.
//
// # One thread for a request
//
// [Pin] runs a function in which [Conn] returns one connection, wherever it is called.
// Around a handler it gives a request one connection, and so one thread, for all its
// queries. Put it around the middleware of package web, which waits for the tasks of
// a request:
//
//	func pinned(db *sql.DB, next http.Handler) http.Handler {
//		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			_ = sqlthread.Pin(r.Context(), db, func(ctx context.Context) error {
//				in := r.WithContext(ctx)
//				// The server removes the files of a form that it finds here.
//				defer func() { r.MultipartForm = in.MultipartForm }()
//				next.ServeHTTP(w, in)
//				return nil
//			})
//		})
//	}
//
//	handler := pinned(db, web.Middleware()(mux))
//
// A request that calls Conn has its connection until it ends. At most as many
// requests have one at a time as sql.DB.SetMaxOpenConns allows. Others wait in Conn
// until their ctx ends.
//
// # What a call costs
//
// Each call of the driver is a call to the thread: see the package
// documentation of asyncsync. Rows are fetched many at a time, the first of
// them together with the query. The rows are closed together with the last. So
// a query with few rows is one call, and one with a thousand rows a handful.
//
// It follows that the driver is some rows ahead of its reader. A program that
// changes what it is reading, in the same transaction, sees what the driver had
// read before. Read to the end first.
//
// The parameters of a statement cost a call each if the driver checks them
// itself (driver.NamedValueChecker). So does each use of a pooled connection if
// the driver has driver.SessionResetter or driver.Validator.
//
// A connection from [Conn] costs the same: each call is a hop. Conn itself is a lock
// and a look into the ctx. Calls on the thread of the connection would need no hop,
// but of a program only the function of [Do] runs there. The reason is in package
// database/sql. When a ctx ends, it closes rows and ends transactions on goroutines
// of its own. These hold locks while they wait for the thread. A program on the
// thread that needed one of these locks would wait for ever, and the library could
// not see it. Use [Do] for many calls of the driver in one hop.
//
// # What the driver sees
//
// Connections, statements and rows have exactly the optional interfaces that
// the driver's own have. Their methods are called on the thread. The deprecated
// driver.Execer and driver.Queryer are offered as the versions with a ctx.
// Bytes are copied. Results are asked for their numbers on the thread where
// they were made. A driver that starts goroutines to watch a ctx does so here
// as well: github.com/mattn/go-sqlite3 runs Exec on such a goroutine, unless
// the ctx can never end.
//
// If a ctx ends while a statement runs, the driver sees it and decides. Panics
// and runtime.Goexit in the driver reach the caller. Those of rows that are
// fetched ahead reach the Next that comes to the row.
//
// # Calls that do not begin
//
// If a ctx ends before a call has begun, the driver is not called, and the error is
// the cause. A cause that database/sql would take for an error of the connection, such
// as driver.ErrBadConn, is only told in the text of it. The driver is called in any
// case to reset a session: database/sql would hand out one that was not reset.
//
// An option such as asyncsync.QueueLimit makes a thread refuse calls. If it refuses
// to reset a session or to end a transaction, the error matches driver.ErrBadConn, so
// that database/sql closes the connection. Rows and statements that it refuses to
// close are closed before the next call. When the executor of asyncsync.WithThread is
// closed, connections on its thread are bad ones.
//
// # Threads
//
// A connection has its thread as long as it is open. The default pool of
// package asyncsync has 128 threads: sql.DB.SetMaxOpenConns must allow fewer
// connections, or asyncsync.WithPool must name a larger pool. A connection for
// which there is no thread waits until its ctx ends.
package sqlthread

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"sync/atomic"

	"asyncsync.dev/asyncsync"
)

//go:generate go run combine.go -o combined.go

// Register makes d available to sql.Open under name, with each connection on a
// thread of its own. The options apply to the contexts of the threads, as for
// asyncsync.Open. It panics if the name is taken, like sql.Register, or if d is
// nil.
func Register(name string, d driver.Driver, opts ...asyncsync.ContextOption) {
	sql.Register(name, Wrap(d, opts...))
}

// Wrap returns a driver whose connections are those of d, each on a thread of
// its own. The result has driver.DriverContext if d has. It may be used from
// any goroutine, as often as d, and compared: each Wrap returns another. It
// panics if d is nil.
func Wrap(d driver.Driver, opts ...asyncsync.ContextOption) driver.Driver {
	if d == nil {
		panic("sqlthread: Wrap: the driver is nil")
	}
	w := &wrapped{d, opts}
	if dc, ok := d.(driver.DriverContext); ok {
		return &wrappedContext{w, dc}
	}
	return w
}

// WrapConnector returns a connector whose connections are those of c, each on a
// thread of its own, for sql.OpenDB. The result has io.Closer if c has. Its
// Driver method returns the driver of c, wrapped, and always the same. It
// panics if c is nil.
//
// Connect waits for a thread, and then for the connection to be opened there.
// If ctx ends before the opening has begun, Connect returns the cause.
func WrapConnector(c driver.Connector, opts ...asyncsync.ContextOption) driver.Connector {
	if c == nil {
		panic("sqlthread: WrapConnector: the connector is nil")
	}
	return wrapConnector(&connector{c: c, opts: opts})
}

func wrapConnector(w *connector) driver.Connector {
	if closer, ok := w.c.(io.Closer); ok {
		return &struct {
			*connector
			io.Closer
		}{w, closer}
	}
	return w
}

// Do runs fn with the driver's own connection, on its thread. rawConn is what
// sql.Conn.Raw passes to its function. Do is for what only the driver can do.
// fn must not keep the connection. Errors, endings and a ctx that ends are as
// for asyncsync.Handle.Do. It panics if rawConn is not from this package.
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

func (w *wrapped) Open(name string) (driver.Conn, error) {
	return open(context.Background(), func(context.Context) (driver.Conn, error) { return w.d.Open(name) }, w.opts)
}

type wrappedContext struct {
	*wrapped
	dc driver.DriverContext
}

func (w *wrappedContext) OpenConnector(name string) (driver.Connector, error) {
	c, err := w.dc.OpenConnector(name)
	if err != nil {
		return nil, err
	}
	of, d := &connector{c: c, opts: w.opts}, driver.Driver(w)
	of.driver.Store(&d)
	return wrapConnector(of), nil
}

type connector struct {
	c      driver.Connector
	opts   []asyncsync.ContextOption
	driver atomic.Pointer[driver.Driver] // nil before somebody asks
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	return open(ctx, c.c.Connect, c.opts)
}

func (c *connector) Driver() driver.Driver {
	if d := c.driver.Load(); d != nil {
		return *d
	}
	d := Wrap(c.c.Driver(), c.opts...)
	c.driver.CompareAndSwap(nil, &d)
	return *c.driver.Load()
}

// open opens a connection on a new thread.
func open(ctx context.Context, connect func(context.Context) (driver.Conn, error), opts []asyncsync.ContextOption) (driver.Conn, error) {
	has, owed := 0, &owed{}
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
	}, func(c driver.Conn) error {
		owed.pay()
		return c.Close()
	}, opts...)
	if err != nil {
		return nil, err
	}
	return connOf[has](&conn{h, owed}), nil
}
