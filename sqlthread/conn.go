package sqlthread

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/core"
)

// A conn is what all connections have. Only functions of the handle touch the
// handle's value.
type conn struct {
	h    *asyncsync.Handle[driver.Conn]
	owed *owed
}

func (c *conn) own() *conn { return c }

// owed has the functions that close a part of the connection and whose calls were refused.
// They run on the thread, before the next method of the driver is called there.
type owed struct {
	mu  sync.Mutex
	fns []func()
}

func (o *owed) add(fn func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fns = append(o.fns, fn)
}

// pay calls the functions, each once even if one before it panics.
func (o *owed) pay() {
	for {
		o.mu.Lock()
		if len(o.fns) == 0 {
			o.mu.Unlock()
			return
		}
		fn := o.fns[0]
		o.fns = o.fns[1:]
		o.mu.Unlock()
		fn()
	}
}

// A hop is a call of the thread.
type hop struct {
	c     *conn
	begun bool
}

// begin is what the function of the call does first.
func (k *hop) begin() {
	k.begun = true
	k.c.owed.pay()
}

// do is Do of the handle. An error of fn is returned as it is, because database/sql
// compares some. Another error says why fn has not begun.
//
// fn is passed on as it is, because the handle names the call after it.
func (k *hop) do(ctx context.Context, fn func(context.Context, driver.Conn) error) error {
	err := k.c.h.Do(ctx, fn)
	if err == nil || k.begun {
		return err
	}
	ctx = core.Afterlife(ctx)
	if cause := core.Ended(ctx); cause != nil && errors.Is(err, cause) {
		if errors.Is(cause, driver.ErrBadConn) || errors.Is(cause, driver.ErrSkip) {
			// The cause says nothing of this connection.
			return fmt.Errorf("%w: %v", ctx.Err(), cause)
		}
		return err
	}
	if errors.Is(err, asyncsync.ErrClosed) {
		return unusable{err} // there is no thread any more
	}
	return err
}

// unusable is the error of a call that was refused, if the connection cannot be used
// after that. It matches driver.ErrBadConn, so that database/sql closes the connection.
type unusable struct{ error }

func (u unusable) Is(target error) bool { return target == driver.ErrBadConn }

func (u unusable) Unwrap() error { return u.error }

// try runs fn on the thread for a method of the driver that has no ctx. The
// goroutine says who calls.
func (c *conn) try(fn func(driver.Conn) error) (begun bool, err error) {
	k := hop{c: c}
	err = k.do(context.Background(), func(_ context.Context, p driver.Conn) error {
		k.begin()
		return fn(p)
	})
	return k.begun, err
}

// on is try for a function that need not begin.
func (c *conn) on(fn func(driver.Conn) error) error {
	_, err := c.try(fn)
	return err
}

// must is try for a function without which nobody may use the connection again.
func (c *conn) must(fn func(driver.Conn) error) error {
	begun, err := c.try(fn)
	if err != nil && !begun {
		return unusable{err}
	}
	return err
}

// closing is try for a function that closes a part of the connection. If fn has not begun,
// it runs before the next method of the driver.
func (c *conn) closing(fn func() error) error {
	begun, err := c.try(func(driver.Conn) error { return fn() })
	if err != nil && !begun {
		c.owed.add(func() { _ = fn() })
	}
	return err
}

// onFor is on for a function that makes a call of e.
func (c *conn) onFor(e *drivers, fn func(driver.Conn) error) error {
	k := hop{c: c}
	return k.doFor(context.Background(), func(_ context.Context, p driver.Conn) error {
		k.begin()
		return fn(p)
	}, e)
}

// doFor is do for a function that makes calls of these.
func (k *hop) doFor(ctx context.Context, fn func(context.Context, driver.Conn) error, calls ...*drivers) error {
	defer func() {
		under := false
		for _, e := range calls {
			under = under || e.under
			e.under = false
		}
		if under {
			_ = recover() // it is errUnderGoexit
		}
	}()
	return k.do(ctx, fn)
}

// drivers is how a function of the driver ended that was called ahead of time. The
// caller is told when it calls that function itself. If it is told earlier, by the panic
// of a query for example, database/sql never uses the connection again.
type drivers struct {
	core.Ending
	under bool // errUnderGoexit is on its way
}

// errUnderGoexit is raised on the thread under a Goexit, which cannot be stopped. The call
// then ends in a panic, which its caller can recover.
var errUnderGoexit any = errors.New("sqlthread: the driver has called runtime.Goexit; the caller is told later")

// call calls fn on the thread, and notes how it ends.
func (e *drivers) call(fn func()) {
	*e = drivers{}
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if e.Ending = core.Recover(v); e.Goexit || v == errUnderGoexit {
			*e = drivers{core.Ending{Goexit: true}, true}
			panic(errUnderGoexit)
		}
	}()
	fn()
	returned = true
}

// raise ends the caller as the driver ended, unless it returned.
func (e *drivers) raise() { core.Raise(e.Ending) }

// Close closes the connection on its thread, and gives the thread back.
func (c *conn) Close() error { return c.h.Close() }

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.prepared(context.Background(), func(_ context.Context, p driver.Conn) (driver.Stmt, error) {
		return p.Prepare(query)
	})
}

func (c *conn) Begin() (driver.Tx, error) {
	return c.begun(context.Background(), func(_ context.Context, p driver.Conn) (driver.Tx, error) {
		return p.Begin() //lint:ignore SA1019 it is what database/sql calls where there is no BeginTx
	})
}

func (c *conn) begun(ctx context.Context, begin func(context.Context, driver.Conn) (driver.Tx, error)) (driver.Tx, error) {
	var w *tx
	k := hop{c: c}
	err := k.do(ctx, func(ctx context.Context, p driver.Conn) error {
		k.begin()
		t, err := begin(ctx, p)
		w = &tx{c, t}
		return err
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// queried runs a query and wraps its rows. The first rows come with it.
func (c *conn) queried(ctx context.Context, query func(context.Context, driver.Conn) (driver.Rows, error)) (driver.Rows, error) {
	r := &rows{}
	k := hop{c: c}
	err := k.doFor(ctx, func(ctx context.Context, p driver.Conn) error {
		k.begin()
		parent, err := query(ctx, p)
		if err != nil {
			return err
		}
		r.open(c, parent)
		return nil
	}, &r.ended)
	if err != nil {
		return nil, err
	}
	return r.whole(), nil
}

// executed runs a statement and reads its result.
func (c *conn) executed(ctx context.Context, exec func(context.Context, driver.Conn) (driver.Result, error)) (driver.Result, error) {
	w := &result{}
	k := hop{c: c}
	err := k.doFor(ctx, func(ctx context.Context, p driver.Conn) error {
		k.begin()
		r, err := exec(ctx, p)
		if err != nil {
			return err
		}
		w.read(r)
		return nil
	}, &w.idEnded, &w.affectedEnded)
	if err != nil {
		return nil, err
	}
	return w, nil
}

type connPinger struct{ c *conn }

func (x connPinger) Ping(ctx context.Context) error {
	k := hop{c: x.c}
	return k.do(ctx, func(ctx context.Context, p driver.Conn) error {
		k.begin()
		return p.(driver.Pinger).Ping(ctx)
	})
}

type connExecerContext struct{ c *conn }

func (x connExecerContext) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return x.c.executed(ctx, func(ctx context.Context, p driver.Conn) (driver.Result, error) {
		if p, ok := p.(driver.ExecerContext); ok {
			return p.ExecContext(ctx, query, args)
		}
		values, err := plain(args)
		if err != nil {
			return nil, err
		}
		return p.(driver.Execer).Exec(query, values) //lint:ignore SA1019 it has no other
	})
}

type connQueryerContext struct{ c *conn }

func (x connQueryerContext) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return x.c.queried(ctx, func(ctx context.Context, p driver.Conn) (driver.Rows, error) {
		if p, ok := p.(driver.QueryerContext); ok {
			return p.QueryContext(ctx, query, args)
		}
		values, err := plain(args)
		if err != nil {
			return nil, err
		}
		return p.(driver.Queryer).Query(query, values) //lint:ignore SA1019 it has no other
	})
}

// plain drops names, which methods without a ctx do not accept.
func plain(args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		if a.Name != "" {
			return nil, errors.New("sqlthread: the driver does not support named parameters")
		}
		values[i] = a.Value
	}
	return values, nil
}

type connConnPrepareContext struct{ c *conn }

func (x connConnPrepareContext) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return x.c.prepared(ctx, func(ctx context.Context, p driver.Conn) (driver.Stmt, error) {
		return p.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	})
}

type connConnBeginTx struct{ c *conn }

func (x connConnBeginTx) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return x.c.begun(ctx, func(ctx context.Context, p driver.Conn) (driver.Tx, error) {
		return p.(driver.ConnBeginTx).BeginTx(ctx, opts)
	})
}

type connSessionResetter struct{ c *conn }

// ResetSession calls the driver even if ctx has ended, as database/sql does: that takes any
// error but driver.ErrBadConn for a session that was reset, and hands out the connection.
func (x connSessionResetter) ResetSession(ctx context.Context) error {
	k := hop{c: x.c}
	end := core.Afterlife(ctx)
	err := k.do(context.WithoutCancel(ctx), func(ctx context.Context, p driver.Conn) error {
		k.begin()
		return p.(driver.SessionResetter).ResetSession(endsWith{ctx, end})
	})
	if err != nil && !k.begun {
		return unusable{err}
	}
	return err
}

// endsWith is a ctx that never ends itself. It ends as another does, which has the cause as
// a value.
type endsWith struct {
	context.Context
	end context.Context
}

func (c endsWith) Deadline() (time.Time, bool) { return c.end.Deadline() }
func (c endsWith) Done() <-chan struct{}       { return c.end.Done() }
func (c endsWith) Err() error                  { return c.end.Err() }

func (c endsWith) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.end.Value(key)
}

type connValidator struct{ c *conn }

func (x connValidator) IsValid() (valid bool) {
	err := x.c.on(func(p driver.Conn) error {
		valid = p.(driver.Validator).IsValid()
		return nil
	})
	return valid && err == nil
}

type connNamedValueChecker struct{ c *conn }

func (x connNamedValueChecker) CheckNamedValue(v *driver.NamedValue) error {
	return x.c.on(func(p driver.Conn) error { return p.(driver.NamedValueChecker).CheckNamedValue(v) })
}

// A tx is a transaction of a connection, on its thread.
type tx struct {
	c *conn
	t driver.Tx
}

// A transaction that has not ended would go on in the hands of the next user.

func (t *tx) Commit() error   { return t.c.must(func(driver.Conn) error { return t.t.Commit() }) }
func (t *tx) Rollback() error { return t.c.must(func(driver.Conn) error { return t.t.Rollback() }) }

// A result has the numbers of a driver's result, which may have to ask the
// connection for them.
type result struct {
	id, affected           int64
	idErr, affectedErr     error
	idEnded, affectedEnded drivers
}

// read is called on the thread.
func (r *result) read(parent driver.Result) {
	// Deferred, for a Goexit of the other.
	defer r.affectedEnded.call(func() { r.affected, r.affectedErr = parent.RowsAffected() })
	r.idEnded.call(func() { r.id, r.idErr = parent.LastInsertId() })
}

func (r *result) LastInsertId() (int64, error) {
	r.idEnded.raise()
	return r.id, r.idErr
}

func (r *result) RowsAffected() (int64, error) {
	r.affectedEnded.raise()
	return r.affected, r.affectedErr
}
