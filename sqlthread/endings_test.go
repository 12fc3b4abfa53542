package sqlthread

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
)

// A fickle is a connection that ends as asked in the method that at names.
type fickle struct {
	*fakeConn
	at  *string
	end func()
}

func (c fickle) may(at string) error {
	if *c.at == at {
		*c.at = ""
		c.end()
	}
	return nil
}

func (c fickle) Close() error                             { return c.may("Close") }
func (c fickle) Ping(context.Context) error               { return c.may("Ping") }
func (c fickle) ResetSession(context.Context) error       { return c.may("ResetSession") }
func (c fickle) IsValid() bool                            { return c.may("IsValid") == nil }
func (c fickle) CheckNamedValue(*driver.NamedValue) error { return c.may("CheckNamedValue") }
func (c fickle) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return fickleTx{c}, c.may("BeginTx")
}
func (c fickle) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return fickleStmt{&fakeStmt{c.fakeConn, "40 0 0"}, c}, c.may("PrepareContext")
}

type fickleTx struct{ c fickle }

func (t fickleTx) Commit() error   { return t.c.may("Commit") }
func (t fickleTx) Rollback() error { return t.c.may("Rollback") }

type fickleStmt struct {
	*fakeStmt
	c fickle
}

func (s fickleStmt) Close() error { return s.c.may("Stmt.Close") }
func (s fickleStmt) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	r, err := newFakeRows(s.c.fakeConn, s.query)
	return fickleRows{r.(*fakeRows), s.c}, errors.Join(err, s.c.may("Stmt.QueryContext"))
}

type fickleRows struct {
	*fakeRows
	c fickle
}

func (r fickleRows) Close() error { return r.c.may("Rows.Close") }

// useAll calls the methods of a connection and of its parts, as database/sql does.
func useAll(c driver.Conn) error {
	ctx := context.Background()
	if err := errors.Join(
		c.(driver.SessionResetter).ResetSession(ctx),
		c.(driver.Pinger).Ping(ctx),
		c.(driver.NamedValueChecker).CheckNamedValue(&driver.NamedValue{}),
	); err != nil {
		return err
	}
	for _, end := range []func(driver.Tx) error{driver.Tx.Commit, driver.Tx.Rollback} {
		tx, err := c.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{})
		if err != nil {
			return err
		}
		s, err := c.(driver.ConnPrepareContext).PrepareContext(ctx, "")
		if err != nil {
			return err
		}
		rows, err := s.(driver.StmtQueryContext).QueryContext(ctx, nil)
		if err != nil {
			return err
		}
		if err := errors.Join(rows.Close(), s.Close(), end(tx)); err != nil {
			return err
		}
	}
	if !c.(driver.Validator).IsValid() {
		return driver.ErrBadConn
	}
	return c.Close()
}

// A panic and a Goexit of the driver reach the caller of each method as they do
// without threads.
func TestEndingsAreThoseOfThePlainDriver(t *testing.T) {
	testkit.Guard(t)
	for _, at := range []string{
		"Ping", "ResetSession", "IsValid", "CheckNamedValue", "BeginTx", "PrepareContext", "Stmt.QueryContext",
		"Commit", "Rollback", "Stmt.Close", "Rows.Close", "Close",
	} {
		for _, how := range []string{"panic", "goexit"} {
			place := at
			f := &fake{t: t}
			d := openFunc(func() (driver.Conn, error) {
				c, err := f.Open("")
				return fickle{c.(*fakeConn), &place, func() { endAs("later " + how) }}, err
			})
			plain, err := d.Open("")
			require.NoError(t, err)
			want := testkit.OutcomeOf(func() error { place = at; return useAll(plain) })
			require.Equal(t, how, want.How, at)
			c, err := Wrap(d).Open("")
			require.NoError(t, err)
			require.Equal(t, want, testkit.OutcomeOf(func() error { place = at; return useAll(c) }), "%s in %s", how, at)
			require.Empty(t, place, "%s was not called", at)
			_ = c.Close()
		}
	}
}
