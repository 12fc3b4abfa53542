package sqlthread

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
)

func openFake(t *testing.T, opts ...asyncsync.ContextOption) (*fake, *sql.DB) {
	t.Helper()
	testkit.Guard(t)
	f := &fake{t: t}
	db := sql.OpenDB(WrapConnector(&fakeConnector{f: f}, opts...))
	t.Cleanup(func() {
		require.NoError(t, db.Close())
		require.Zero(t, f.open, "connections that are open")
	})
	return f, db
}

// Each set of optional interfaces of the driver is that of the wrapper. The
// wrappers themselves serve as drivers that have just these.
func TestInterfacesAreThoseOfTheDriver(t *testing.T) {
	testkit.Guard(t)
	for has := range connOf {
		// The connection below is never called but to be closed.
		h, err := asyncsync.Open(t.Context(), func(context.Context) (driver.Conn, error) { return &fakeConn{&fake{t: t}, 0}, nil }, nil)
		require.NoError(t, err)
		bare := connOf[has](&conn{h: h})
		require.Equal(t, has, connHas(bare))
		c, err := Wrap(openFunc(func() (driver.Conn, error) { return bare, nil })).Open("")
		require.NoError(t, err)
		require.Equal(t, has, connHas(c))
		require.NoError(t, c.Close())
	}
	for has := range stmtOf {
		require.Equal(t, has, stmtHas(stmtOf[has](&stmt{})))
	}
	for has := range rowsOf {
		require.Equal(t, has, rowsHas(rowsOf[has](&rows{})))
	}
	// Statements and rows of a driver that has none of it, or all.
	c := &conn{}
	r := &rows{}
	r.open(c, rowsOf[0](&rows{err: io.EOF, closed: true}))
	require.Zero(t, rowsHas(r.whole()))
	_, ok := Wrap(openFunc(nil)).(driver.DriverContext)
	require.False(t, ok)
	_, ok = Wrap(&fake{t: t}).(driver.DriverContext)
	require.True(t, ok)
	_, ok = WrapConnector(&fakeConnector{}).(io.Closer)
	require.True(t, ok)
	_, ok = WrapConnector(&connector{}).(io.Closer)
	require.False(t, ok)
}

// Drivers and connectors are compared, and are keys of maps. A database has one driver,
// which is the one that it was opened with.
func TestDriversAreCompared(t *testing.T) {
	f, db := openFake(t)
	names := map[driver.Driver]string{db.Driver(): "fake"}
	require.Equal(t, "fake", names[db.Driver()])
	for _, d := range []driver.Driver{f, openFunc(func() (driver.Conn, error) { return nil, io.EOF })} {
		require.True(t, Wrap(d) != Wrap(d))
	}
	for _, c := range []driver.Connector{&fakeConnector{f: f}, slowConnector{}} {
		require.True(t, WrapConnector(c) != WrapConnector(c))
	}
	w := Wrap(f)
	c, err := w.(driver.DriverContext).OpenConnector("")
	require.NoError(t, err)
	require.True(t, c.Driver() == w)
}

type openFunc func() (driver.Conn, error)

func (f openFunc) Open(string) (driver.Conn, error) { return f() }

// combined.go is what combine.go writes.
func TestCombinedIsUpToDate(t *testing.T) {
	out := filepath.Join(t.TempDir(), "combined.go")
	text, err := exec.Command("go", "run", "combine.go", "-o", out).CombinedOutput()
	require.NoError(t, err, "%s", text)
	want, err := os.ReadFile(out)
	require.NoError(t, err)
	got, err := os.ReadFile("combined.go")
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run go generate")
}

// Everything that the driver is called for is called on the connection's own
// thread: the fake checks. Here it is seen to be called at all.
func TestEverythingIsOnTheThread(t *testing.T) {
	f, db := openFake(t)
	ctx := t.Context()
	called := make(map[string]bool)
	note := func() {
		for _, c := range f.take() {
			called[c] = true
		}
	}
	require.NoError(t, db.PingContext(ctx))
	res, err := db.ExecContext(ctx, "x", 1)
	require.NoError(t, err)
	note()
	id, err := res.LastInsertId()
	require.NoError(t, err)
	require.EqualValues(t, 7, id)
	_, err = res.RowsAffected()
	require.EqualError(t, err, "not known")
	require.Empty(t, f.take(), "a result asks the driver later")
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	s, err := tx.PrepareContext(ctx, "3 1 0")
	require.NoError(t, err)
	_, err = s.ExecContext(ctx, 1)
	require.NoError(t, err)
	rows, err := s.QueryContext(ctx, 1)
	require.NoError(t, err)
	types, err := rows.ColumnTypes()
	require.NoError(t, err)
	require.Equal(t, "FAKE", types[1].DatabaseTypeName())
	length, ok := types[0].Length()
	require.True(t, ok)
	require.EqualValues(t, 9, length)
	precision, scale, ok := types[0].DecimalSize()
	require.True(t, ok)
	require.EqualValues(t, []int64{5, 2}, []int64{precision, scale})
	nullable, ok := types[0].Nullable()
	require.True(t, nullable && ok)
	for range 2 {
		for rows.Next() {
		}
		rows.NextResultSet()
	}
	require.NoError(t, rows.Close())
	require.NoError(t, s.Close())
	require.NoError(t, tx.Commit())
	tx, err = db.Begin()
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
	// What database/sql has no use for where there is something better.
	conn, err := db.Conn(ctx)
	require.NoError(t, err)
	require.NoError(t, conn.Raw(func(c any) error {
		raw := c.(driver.Conn)
		//lint:ignore SA1019 it is forwarded
		tx, err := raw.Begin()
		require.NoError(t, err)
		require.NoError(t, tx.Rollback())
		s, err := raw.Prepare("1 0 0")
		require.NoError(t, err)
		//lint:ignore SA1019 it is forwarded
		_, err = s.Exec(nil)
		require.NoError(t, err)
		//lint:ignore SA1019 it is forwarded
		rows, err := s.Query(nil)
		require.NoError(t, err)
		require.NoError(t, rows.Close())
		//lint:ignore SA1019 it is forwarded
		v, err := s.(driver.ColumnConverter).ColumnConverter(0).ConvertValue(1)
		require.NoError(t, err)
		require.Equal(t, int64(1), v)
		require.NoError(t, raw.(driver.NamedValueChecker).CheckNamedValue(&driver.NamedValue{}))
		require.NoError(t, s.Close())
		return Do(ctx, c, func(_ context.Context, c driver.Conn) error {
			c.(*fakeConn).note("own")
			return nil
		})
	}))
	require.NoError(t, conn.Close())
	note()
	for _, c := range []string{
		"Ping", "Begin", "BeginTx", "Prepare", "PrepareContext", "ExecContext", "ResetSession", "IsValid", "CheckNamedValue",
		"Commit", "Rollback", "LastInsertId", "RowsAffected", "Stmt.Close", "NumInput", "Stmt.Exec", "Stmt.Query", "Stmt.ExecContext",
		"Stmt.QueryContext", "Stmt.CheckNamedValue", "ColumnConverter", "ConvertValue", "Columns", "Rows.Close", "Next", "HasNextResultSet", "NextResultSet",
		"ColumnTypeScanType", "ColumnTypeDatabaseTypeName", "ColumnTypeLength", "ColumnTypeNullable", "ColumnTypePrecisionScale", "own",
	} {
		require.True(t, called[c], "%s was not called", c)
	}
}

func TestDoWithSomethingElsePanics(t *testing.T) {
	require.PanicsWithValue(t, "sqlthread: Do: a int is no connection of this package: wrap its driver", func() {
		_ = Do(t.Context(), 1, nil)
	})
	require.PanicsWithValue(t, "sqlthread: Wrap: the driver is nil", func() { Wrap(nil) })
	require.PanicsWithValue(t, "sqlthread: WrapConnector: the connector is nil", func() { WrapConnector(nil) })
}

// count returns an option that counts calls, and the number of calls.
func count() (asyncsync.ContextOption, func() int) {
	calls := make(chan int, 1)
	calls <- 0
	hook := asyncsync.WithHooks(asyncsync.Hooks{Started: func(asyncsync.CallInfo) { calls <- 1 + <-calls }})
	return hook, func() int { n := <-calls; calls <- 0; return n }
}

// A thousand rows are fetched in a handful of calls, a few come with the query.
func TestRowsAreFetchedTogether(t *testing.T) {
	hooks, calls := count()
	f, db := openFake(t, hooks)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	calls()
	for _, c := range []struct {
		query       string
		rows, calls int
	}{
		{"0 0 0", 0, 1}, {"1 0 0", 1, 1}, {"15 0 0", 15, 1},
		{"16 0 0", 16, 2}, {"1000 0 0", 1000, 3}, {"5000 0 0", 5000, 7},
	} {
		rows, err := conn.QueryContext(t.Context(), c.query)
		require.NoError(t, err)
		n := 0
		var kept [][]byte
		for ; rows.Next(); n++ {
			var i int
			var b []byte
			require.NoError(t, rows.Scan(&i, &b))
			require.Equal(t, c.rows-n-1, i)
			kept = append(kept, b)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.Equal(t, c.rows, n)
		for i, b := range kept {
			require.Equal(t, []byte{byte(c.rows - i - 1)}, b)
		}
		require.Equal(t, c.calls, calls(), c.query)
		closes := slices.DeleteFunc(f.take(), func(s string) bool { return s != "Rows.Close" })
		require.Len(t, closes, 1, c.query)
	}
}

// A transaction is a call for each thing that a program does in it, and no more.
func TestATransactionIsAFewCalls(t *testing.T) {
	hooks, calls := count()
	_, db := openFake(t, hooks)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	calls()
	tx, err := conn.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for range 2 {
		res, err := tx.ExecContext(t.Context(), "x")
		require.NoError(t, err)
		_, err = res.LastInsertId()
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
	require.Equal(t, 4, calls(), "begin, exec, exec, commit")
}

// Rows may have no columns, end in an error, be left, or be followed by others.
func TestRowsThatEndInOtherWays(t *testing.T) {
	_, db := openFake(t)
	all := func(rows *sql.Rows) (n int) {
		for rows.Next() {
			n++
		}
		return n
	}
	rows, err := db.Query("none")
	require.NoError(t, err)
	require.Equal(t, 40, all(rows))
	require.NoError(t, rows.Err())

	rows, err = db.Query("20 0 1")
	require.NoError(t, err)
	require.Equal(t, 20, all(rows))
	require.EqualError(t, rows.Err(), "in the middle")
	require.NoError(t, rows.Close())

	rows, err = db.Query("100 0 0")
	require.NoError(t, err)
	require.True(t, rows.Next())
	require.NoError(t, rows.Close())
	require.False(t, rows.Next())

	rows, err = db.Query("20 2 0")
	require.NoError(t, err)
	require.Equal(t, 20, all(rows))
	require.True(t, rows.NextResultSet())
	require.True(t, rows.Next())
	require.True(t, rows.NextResultSet())
	require.Equal(t, 3, all(rows))
	require.False(t, rows.NextResultSet())
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())

	_, err = db.Query("no numbers")
	require.Error(t, err)
}

// What the driver ends by its caller ends by, and the connection goes on.
func TestEndings(t *testing.T) {
	_, db := openFake(t)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	require.PanicsWithValue(t, errPanic, func() { _, _ = conn.ExecContext(t.Context(), "panic") })
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		_, _ = conn.ExecContext(t.Context(), "goexit")
		returned = true
	}()
	require.False(t, <-ended)
	_, err = conn.ExecContext(t.Context(), "fine")
	require.NoError(t, err)
}

// What the driver is called for before its time ends the caller when it comes to call that
// itself, after the rows that came before. The connection goes on.
func TestEndingsThatAreAhead(t *testing.T) {
	f, db := openFake(t)
	db.SetMaxOpenConns(1)
	for _, want := range []testkit.Outcome{{How: "panic", Value: errPanic}, {How: "goexit"}} {
		check := func(what string, fn func() error) {
			t.Helper()
			require.Equal(t, want, testkit.OutcomeOf(fn), what)
			require.Zero(t, db.Stats().InUse, "%s: the connection is lost", what)
			require.NoError(t, db.Ping())
		}
		for _, after := range []int{-1, 0, 1, 15, 16, 20, 200} {
			n := 0
			f.take()
			check(fmt.Sprint(after, " rows"), func() error {
				rows, err := db.Query(fmt.Sprintf("later %s after %d", want.How, after))
				if err != nil {
					return err
				}
				defer rows.Close()
				for ; rows.Next(); n++ {
					var i int
					var b []byte
					if err := rows.Scan(&i, &b); err != nil || i != after-n-1 {
						return fmt.Errorf("row %d is %d, or %w", n, i, err)
					}
				}
				return rows.Err()
			})
			require.Equal(t, max(after, 0), n, "rows before the end")
			require.Contains(t, f.take(), "Rows.Close")
		}
		check("result", func() error {
			res, err := db.Exec("later " + want.How)
			if err != nil {
				return err
			}
			if _, err := res.RowsAffected(); err == nil || err.Error() != "not known" {
				return err // of another number
			}
			_, err = res.LastInsertId()
			return err
		})
	}
	// The end of a statement's number of parameters is that of who asks for it.
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Raw(func(c any) error {
		for _, want := range []testkit.Outcome{{How: "panic", Value: errPanic}, {How: "goexit"}} {
			s, err := c.(driver.Conn).Prepare("later " + want.How)
			require.NoError(t, err)
			require.Equal(t, want, testkit.OutcomeOf(func() error { s.NumInput(); return nil }))
			require.NoError(t, s.Close())
		}
		return nil
	}))
}

// A connection has its thread from a pool until it is closed, a transaction its
// connection.
func TestThreads(t *testing.T) {
	pool := asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{MaxThreads: 2, MaxOverflow: -1})
	defer func() { require.NoError(t, pool.Close()) }()
	f, db := openFake(t, asyncsync.WithPool(pool))
	db.SetMaxIdleConns(2)
	one, err := db.Begin()
	require.NoError(t, err)
	two, err := db.Begin()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	three := make(chan error)
	go func() { _, err := db.Conn(ctx); three <- err }()
	cancel()
	require.ErrorIs(t, <-three, context.Canceled, "there is no third thread")
	for range 3 {
		_, err = one.Exec("x")
		require.NoError(t, err)
		_, err = two.Exec("x")
		require.NoError(t, err)
	}
	require.NoError(t, one.Commit())
	require.NoError(t, two.Commit())
	require.Equal(t, 2, f.conns)
	require.NoError(t, db.Close())
	stats := pool.Stats()
	require.Equal(t, stats.Threads, stats.Idle, "threads that were given back")
}

// Opening may fail.
func TestOpenFails(t *testing.T) {
	testkit.Guard(t)
	bad := io.ErrUnexpectedEOF
	d := Wrap(openFunc(func() (driver.Conn, error) { return nil, bad }))
	c, err := d.Open("")
	require.ErrorIs(t, err, bad)
	require.Nil(t, c)
	_, err = Wrap(&fake{t: t}).(driver.DriverContext).OpenConnector("bad")
	require.EqualError(t, err, "a bad name")
	require.PanicsWithValue(t, bad, func() { _, _ = Wrap(openFunc(func() (driver.Conn, error) { panic(bad) })).Open("") })
}
