package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"asyncsync.dev/asyncsync"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

//go:embed schema.sql
var schema string

// A store keeps the notes in one SQLite connection, which a thread of its own
// owns. Its methods may be called from any goroutine.
//
// Functions that take a *sqlite.Conn run on that thread. They may call out to
// async code (forEach) and that code may call methods of the store with the
// context it was given; but no statement may be open while they do so, because
// the same prepared statement may be needed further in.
type store struct {
	db      *asyncsync.Handle[*sqlite.Conn]
	lookups lookups
	usage   usageLog
}

// openStore opens the database file at path, and creates what is missing.
func openStore(ctx context.Context, path string, l lookups) (*store, error) {
	s := &store{lookups: l}
	open := func(context.Context) (*sqlite.Conn, error) {
		s.usage.record(0)
		return openConn(path)
	}
	// The connection is closed on its thread as well.
	closeConn := func(conn *sqlite.Conn) error {
		s.usage.record(0)
		return conn.Close()
	}
	db, err := asyncsync.Open(ctx, open, closeConn, asyncsync.WithName("notes database"),
		// Who has to wait behind more than this is told so: see server.fail.
		asyncsync.QueueLimit(1000), asyncsync.QueueWait(5*time.Second))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.db = db
	return s, nil
}

func openConn(path string) (*sqlite.Conn, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL)
	if err != nil {
		return nil, err
	}
	if err := prepare(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func prepare(conn *sqlite.Conn) error {
	// SQLite ignores foreign keys unless told otherwise, and not in a
	// transaction, which ExecuteScript makes.
	for _, pragma := range []string{"PRAGMA foreign_keys = ON", "PRAGMA synchronous = NORMAL"} {
		if err := sqlitex.ExecuteTransient(conn, pragma, nil); err != nil {
			return err
		}
	}
	return sqlitex.ExecuteScript(conn, schema, nil)
}

// close waits for the calls under way and closes the database.
func (s *store) close() error { return s.db.Close() }

// do runs fn on the database's thread. Called by code that the thread itself
// waits for, fn runs inside that wait: in the middle of its transaction.
func (s *store) do(ctx context.Context, name string, fn func(context.Context, *sqlite.Conn) error) error {
	return s.db.Do(ctx, func(ctx context.Context, conn *sqlite.Conn) error {
		return fn(s.enter(ctx), conn)
	}, asyncsync.Named(name))
}

// query is do for reads: they have a result, they call nothing, and they are
// interrupted when ctx ends.
func query[R any](ctx context.Context, s *store, name string, fn func(*sqlite.Conn) (R, error)) (R, error) {
	// SQLite itself can be interrupted from any thread. This driver, whose Conn
	// is for one goroutine at a time, is given a channel to watch instead: once
	// closed it stays so.
	ended := make(chan struct{})
	result, err := asyncsync.Get(ctx, s.db, func(ctx context.Context, conn *sqlite.Conn) (R, error) {
		s.enter(ctx)
		defer conn.SetInterrupt(conn.SetInterrupt(ended))
		return fn(conn)
	}, asyncsync.Named(name), asyncsync.InterruptOnce(func() { close(ended) }))
	if ctx.Err() != nil && sqlite.ErrCode(err) == sqlite.ResultInterrupt {
		return result, context.Cause(ctx)
	}
	return result, err
}

// atomically runs fn on the database's thread: all that it writes is kept, or,
// if it ends in any other way than by returning nil, nothing. Savepoints nest,
// so it works at any depth; the outermost is the transaction.
//
// They nest properly because a thread that waits for one task runs no calls of
// its siblings meanwhile: whatever begins inside fn also ends inside it.
func (s *store) atomically(conn *sqlite.Conn, fn func() error) (err error) {
	if err := exec(conn, "SAVEPOINT atomically"); err != nil {
		return err
	}
	kept := false
	// Deferred, because fn may also panic, or end its goroutine.
	defer func() {
		if kept {
			return
		}
		err = errors.Join(err, exec(conn, "ROLLBACK TO atomically"), exec(conn, "RELEASE atomically"))
		if conn.AutocommitEnabled() {
			s.usage.rolledBack()
		}
	}()
	if err := fn(); err != nil {
		return err
	}
	if err := exec(conn, "RELEASE atomically"); err != nil {
		return err
	}
	kept = true
	return nil
}

// exec runs one statement and discards its rows.
func exec(conn *sqlite.Conn, sql string, args ...any) error {
	return sqlitex.Execute(conn, sql, &sqlitex.ExecOptions{Args: args})
}
