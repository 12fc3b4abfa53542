package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"asyncsync.dev/asyncsync"
	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// A rawDB is a connection of SQLite as its C interface has it: without anybody
// who remembers that it was interrupted, as the driver of the store does.
type rawDB struct {
	tls *libc.TLS
	db  uintptr // *sqlite3
}

// sqliteError is a result code of SQLite.
type sqliteError int32

func (e sqliteError) Error() string { return fmt.Sprintf("sqlite: result %d", int32(e)) }

func openRaw(context.Context) (*rawDB, error) {
	c := &rawDB{tls: libc.NewTLS()}
	name, err := libc.CString(":memory:")
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, name)
	out := c.tls.Alloc(8)
	defer c.tls.Free(8)
	rc := lib.Xsqlite3_open_v2(c.tls, name, out, lib.SQLITE_OPEN_READWRITE|lib.SQLITE_OPEN_CREATE, 0)
	c.db = libc.AtomicLoadNUintptr(out, 0)
	if rc != lib.SQLITE_OK {
		return nil, errors.Join(sqliteError(rc), c.close())
	}
	return c, nil
}

func (c *rawDB) close() error {
	defer c.tls.Close()
	if rc := lib.Xsqlite3_close_v2(c.tls, c.db); rc != lib.SQLITE_OK {
		return sqliteError(rc)
	}
	return nil
}

func (c *rawDB) exec(sql string) error {
	text, err := libc.CString(sql)
	if err != nil {
		return err
	}
	defer libc.Xfree(c.tls, text)
	if rc := lib.Xsqlite3_exec(c.tls, c.db, text, 0, 0, 0); rc != lib.SQLITE_OK {
		return sqliteError(rc)
	}
	return nil
}

// interrupt may be called from any thread while the connection is open. It ends
// the statements that run at that moment, and does nothing if none runs.
func (c *rawDB) interrupt() {
	tls := libc.NewTLS()
	defer tls.Close()
	lib.Xsqlite3_interrupt(tls, c.db)
}

// A DB may be used from anywhere.
type DB struct {
	h *asyncsync.Handle[*rawDB]
	c *rawDB // for interrupt alone; the rest is for the thread of h
}

// Exec runs statements, and has SQLite give them up when ctx ends.
func (d *DB) Exec(ctx context.Context, sql string) error {
	return d.h.Do(ctx, func(_ context.Context, c *rawDB) error {
		return c.exec(sql)
	}, asyncsync.Interrupt(d.c.interrupt))
}

func openDB(t *testing.T) *DB {
	t.Helper()
	h, err := asyncsync.Open(t.Context(), openRaw, (*rawDB).close, asyncsync.WithName("raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := asyncsync.Get(t.Context(), h, func(_ context.Context, c *rawDB) (*rawDB, error) { return c, nil })
	if err != nil {
		t.Fatal(err)
	}
	return &DB{h, c}
}

const endless = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`

// TestInterruptBeforeTheStatement ends the ctx between the begin of the function
// and that of its statement: the first sqlite3_interrupt hits nothing. It ends
// only if there is another.
func TestInterruptBeforeTheStatement(t *testing.T) {
	d := openDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan struct{})
	interrupt := sync.OnceFunc(func() { close(first) })
	err := d.h.Do(ctx, func(_ context.Context, c *rawDB) error {
		cancel()
		<-first
		return c.exec(endless)
	}, asyncsync.Interrupt(func() {
		d.c.interrupt()
		interrupt()
	}))
	if err != sqliteError(lib.SQLITE_INTERRUPT) {
		t.Errorf("the query ended with %v, want %v", err, sqliteError(lib.SQLITE_INTERRUPT))
	}
	// Nothing hits the next query.
	if err := d.Exec(t.Context(), `CREATE TABLE t(x); INSERT INTO t VALUES (1), (2)`); err != nil {
		t.Error(err)
	}
}

// TestInterruptedQueries has the ctx of one endless query after another end at
// whatever moment that is.
func TestInterruptedQueries(t *testing.T) {
	d := openDB(t)
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		err := d.Exec(ctx, endless)
		if err != sqliteError(lib.SQLITE_INTERRUPT) && !errors.Is(err, context.Canceled) {
			t.Errorf("the query ended with %v", err)
		}
		if err := d.Exec(t.Context(), `SELECT 1`); err != nil {
			t.Error(err)
		}
	}
}
