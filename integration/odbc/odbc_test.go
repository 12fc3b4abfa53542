package odbc_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"

	own "github.com/alexbrainman/odbc"
	"github.com/stretchr/testify/require"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/integration/odbc"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/sqlthread"
)

// pool has the threads of the connections.
var pool = asyncsync.NewThreadPool(asyncsync.ThreadPoolConfig{})

// requireNoThreads says that all threads have been given back.
func requireNoThreads(t *testing.T) {
	t.Helper()
	stats := pool.Stats()
	require.Equal(t, stats.Threads, stats.Idle, "threads that were given back")
}

func init() {
	sqlthread.Register("odbc-thread", odbc.Driver(), asyncsync.WithPool(pool))
	sqlthread.Register("odbc-bare", odbc.Bare())
	sqlthread.Register("odbc-probed", probedDriver{odbc.Driver()})
}

// open opens a new database with one table, over the ODBC driver of SQLite.
func open(t *testing.T, name string) *sql.DB {
	t.Helper()
	testkit.Guard(t)
	db, err := sql.Open(name, "DRIVER=SQLite3;Timeout=100000;Database="+filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.Exec("CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(100) UNIQUE)")
	require.NoError(t, err)
	return db
}

func insert(t *testing.T, on interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, name string) {
	t.Helper()
	res, err := on.ExecContext(t.Context(), "INSERT INTO t (name) VALUES (?)", name)
	require.NoError(t, err)
	n, err := res.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func count(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM t").Scan(&n))
	return n
}

// story uses a database in all the ways that there are.
func story(t *testing.T, db *sql.DB) {
	tx, err := db.Begin()
	require.NoError(t, err)
	for i := range 100 {
		insert(t, tx, fmt.Sprint("name ", i))
	}
	require.NoError(t, tx.Commit())
	tx, err = db.Begin()
	require.NoError(t, err)
	insert(t, tx, "nobody")
	require.NoError(t, tx.Rollback())

	s, err := db.Prepare("SELECT id, name FROM t WHERE id > ? ORDER BY id")
	require.NoError(t, err)
	for _, after := range []int{0, 50} {
		rows, err := s.QueryContext(t.Context(), after)
		require.NoError(t, err)
		n := after
		for rows.Next() {
			var id int
			var name string
			require.NoError(t, rows.Scan(&id, &name))
			require.Equal(t, n+1, id)
			require.Equal(t, fmt.Sprint("name ", n), name)
			n++
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.Equal(t, 100, n)
	}
	require.NoError(t, s.Close())
	require.Equal(t, 100, count(t, db))

	// Errors are those of the driver, in which are those of the database.
	_, err = db.Exec("INSERT INTO t (name) VALUES (?)", "name 7")
	var failed *own.Error
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Error(), "UNIQUE")
	_, err = db.Query("SELECT * FROM nowhere")
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Error(), "no such table")
}

// threads returns the threads of each connection, without number 0: what is for none.
func threads(calls []odbc.Call) map[int]map[int]bool {
	of := make(map[int]map[int]bool)
	for _, c := range calls {
		if c.Conn != 0 {
			if of[c.Conn] == nil {
				of[c.Conn] = make(map[int]bool)
			}
			of[c.Conn][c.Thread] = true
		}
	}
	return of
}

// Every function of ODBC that is called for a connection is called on one OS thread,
// from the first to the last: as C sees it.
func TestAConnectionHasOneThread(t *testing.T) {
	stop := odbc.Record()
	t.Run("story", func(t *testing.T) { story(t, open(t, "odbc-thread")) })
	calls := stop()
	for conn, on := range threads(calls) {
		require.Len(t, on, 1, "threads of connection %d", conn)
	}
	called := make(map[string]bool)
	for _, c := range calls {
		called[c.Name] = true
	}
	for _, name := range []string{
		"SQLAllocHandle", "SQLDriverConnectW", "SQLPrepareW", "SQLNumParams", "SQLBindParameter", "SQLExecute", "SQLRowCount", "SQLMoreResults", "SQLNumResultCols",
		"SQLDescribeColW", "SQLBindCol", "SQLFetch", "SQLCloseCursor", "SQLEndTran", "SQLGetDiagRecW", "SQLDisconnect", "SQLFreeHandle",
	} {
		require.True(t, called[name], "%s was not called", name)
	}
	require.Equal(t, "SQLFreeHandle", calls[len(calls)-1].Name)
	requireNoThreads(t)
}

// What the driver does on goroutines of its own no wrapper can bring back: that is
// why Driver hides it.
func TestTheDriverByItselfLeavesTheThread(t *testing.T) {
	stop := odbc.Record()
	t.Run("story", func(t *testing.T) { story(t, open(t, "odbc-bare")) })
	most := 0
	for _, on := range threads(stop()) {
		most = max(most, len(on))
	}
	require.Greater(t, most, 1, "QueryContext stays on the thread: Driver need not hide it any longer")
}

// Connections that are open at a time have a thread each.
func TestEachConnectionHasItsOwnThread(t *testing.T) {
	db := open(t, "odbc-thread")
	db.SetMaxIdleConns(0)
	stop := odbc.Record()
	var conns []*sql.Conn
	for range 4 {
		c, err := db.Conn(t.Context())
		require.NoError(t, err)
		conns = append(conns, c)
	}
	for i := range 3 {
		for j, c := range conns {
			insert(t, c, fmt.Sprint(i, j))
		}
	}
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	of, all := threads(stop()), make(map[int]bool)
	require.Len(t, of, 4)
	for conn, on := range of {
		require.Len(t, on, 1, "threads of connection %d", conn)
		for thread := range on {
			all[thread] = true
		}
	}
	require.Len(t, all, 4, "threads of all connections")
}

// A connection that cannot be opened leaves no thread behind.
func TestOpenFails(t *testing.T) {
	testkit.Guard(t)
	db, err := sql.Open("odbc-thread", "DRIVER=No such driver")
	require.NoError(t, err)
	defer db.Close()
	stop := odbc.Record()
	err = db.Ping()
	var failed *own.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "SQLDriverConnect", failed.APIName)
	for conn, on := range threads(stop()) {
		require.Len(t, on, 1, "threads of connection %d", conn)
	}
	requireNoThreads(t)
}

// A ctx that ends while a statement runs is not seen before the statement has ended:
// the caller waits. The statement is held in C, where it begins.
func TestCancelARunningStatement(t *testing.T) {
	db := open(t, "odbc-thread")
	db.SetMaxOpenConns(1)
	insert(t, db, "one")
	for name, run := range map[string]func(context.Context) error{
		"exec": func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "INSERT INTO t (name) VALUES ('two')")
			return err
		},
		"query": func(ctx context.Context) error {
			rows, err := db.QueryContext(ctx, "SELECT name FROM t")
			if err != nil {
				return err
			}
			return rows.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			stop := odbc.Record()
			reached, release := odbc.Hold("SQLExecute")
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- run(ctx) }()
			<-reached
			cancel()
			select {
			case err := <-ended:
				release()
				require.FailNow(t, "the caller has not waited", "%v", err)
			default:
			}
			release()
			require.NoError(t, <-ended)
			require.Positive(t, count(t, db), "the connection goes on")
			for _, c := range stop() {
				require.NotEqual(t, "SQLCancel", c.Name)
			}
		})
	}
	require.Equal(t, 2, count(t, db), "Exec has had its effect")
}

// A ctx that has ended lets nothing begin, and ends a transaction, on the thread.
func TestCancelATransaction(t *testing.T) {
	db := open(t, "odbc-thread")
	db.SetMaxOpenConns(1)
	stop := odbc.Record()
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	insert(t, tx, "one")
	cancel()
	_, err = tx.ExecContext(ctx, "INSERT INTO t (name) VALUES ('two')")
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, count(t, db), "which waits for the one connection")
	require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
	ends := 0
	calls := stop()
	for _, c := range calls {
		if c.Name == "SQLEndTran" {
			ends++
		}
	}
	require.Equal(t, 1, ends)
	for conn, on := range threads(calls) {
		require.Len(t, on, 1, "threads of connection %d", conn)
	}
}

// Many goroutines use a few connections, which count in plain variables what is done
// with them: the race detector is the witness.
func TestPlainVariables(t *testing.T) {
	db := open(t, "odbc-probed")
	db.SetMaxOpenConns(3)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			for j := range 5 {
				ctx, cancel := context.WithCancel(t.Context())
				tx, err := db.BeginTx(ctx, nil)
				if err == nil && j%2 == 0 {
					cancel() // it is rolled back by somebody else
				}
				if err == nil {
					_, err = tx.Exec("SELECT 1")
				}
				if err == nil {
					err = tx.Commit()
				}
				cancel()
				if err != nil && !errors.Is(err, sql.ErrTxDone) && !errors.Is(err, context.Canceled) {
					t.Errorf("%d: %v", i, err)
				}
				var n int
				if err := db.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// A probedDriver counts in plain variables of each connection.
type probedDriver struct{ driver.Driver }

func (d probedDriver) Open(dsn string) (driver.Conn, error) {
	c, err := d.Driver.Open(dsn)
	if err != nil {
		return nil, err
	}
	return &probe{Conn: c}, nil
}

type probe struct {
	driver.Conn
	within, uses int
}

// use says that the connection is used, until the returned function is called.
func (p *probe) use() (over func()) {
	if p.within++; p.within != 1 {
		panic("a connection is used twice at a time")
	}
	p.uses++
	return func() { p.within-- }
}

func (p *probe) Close() error {
	defer p.use()()
	return p.Conn.Close()
}

func (p *probe) Begin() (driver.Tx, error) {
	defer p.use()()
	tx, err := p.Conn.Begin() //lint:ignore SA1019 it is what this driver has
	return probedTx{p, tx}, err
}

func (p *probe) Prepare(query string) (driver.Stmt, error) {
	defer p.use()()
	s, err := p.Conn.Prepare(query)
	if err != nil {
		return nil, err
	}
	return probedStmt{p, s}, nil
}

type probedTx struct {
	p  *probe
	tx driver.Tx
}

func (x probedTx) Commit() error   { defer x.p.use()(); return x.tx.Commit() }
func (x probedTx) Rollback() error { defer x.p.use()(); return x.tx.Rollback() }

type probedStmt struct {
	p *probe
	s driver.Stmt
}

func (x probedStmt) Close() error  { defer x.p.use()(); return x.s.Close() }
func (x probedStmt) NumInput() int { return x.s.NumInput() }
func (x probedStmt) Exec(args []driver.Value) (driver.Result, error) {
	defer x.p.use()()
	return x.s.Exec(args) //lint:ignore SA1019 it is what this driver has
}
func (x probedStmt) Query(args []driver.Value) (driver.Rows, error) {
	defer x.p.use()()
	r, err := x.s.Query(args) //lint:ignore SA1019 it is what this driver has
	if err != nil {
		return nil, err
	}
	return probedRows{x.p, r}, nil
}

type probedRows struct {
	p *probe
	r driver.Rows
}

func (x probedRows) Columns() []string { defer x.p.use()(); return x.r.Columns() }
func (x probedRows) Close() error      { defer x.p.use()(); return x.r.Close() }
func (x probedRows) Next(dest []driver.Value) error {
	defer x.p.use()()
	err := x.r.Next(dest)
	if err != nil && err != io.EOF {
		return fmt.Errorf("next: %w", err)
	}
	return err
}
