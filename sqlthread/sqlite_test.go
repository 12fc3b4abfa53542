package sqlthread_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/sqlthread"
)

// drivers are real ones, in C and in Go.
var drivers = map[string]driver.Driver{"mattn": &sqlite3.SQLiteDriver{}, "modernc": &sqlite.Driver{}}

func init() {
	for name, d := range drivers {
		sql.Register("bare-"+name, d)
		sqlthread.Register("thread-"+name, d)
	}
	// Two with a function of SQL that tells that it is called.
	sqlthread.Register("thread-mattn-started", &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		return c.RegisterFunc("started", signal, false)
	}})
	sqlite.MustRegisterScalarFunction("started", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return signal(), nil
	})
	registered, err := sql.Open("sqlite", "") // the driver that has the function
	if err != nil {
		panic(err)
	}
	sqlthread.Register("thread-modernc-started", registered.Driver())
}

// started has something in it when the function has been called.
var started = make(chan struct{}, 1)

func signal() int64 {
	select {
	case started <- struct{}{}:
	default:
	}
	return 1
}

func open(t testing.TB, name string) *sql.DB {
	t.Helper()
	db, err := sql.Open(name, filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func forEach(t *testing.T, f func(t *testing.T, db *sql.DB)) {
	for name := range drivers {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			f(t, open(t, "thread-"+name))
		})
	}
}

// story does a little of everything and tells what came of it.
func story(t *testing.T, db *sql.DB) (told []string) {
	ctx := t.Context()
	tell := func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }
	exec := func(query string, args ...any) {
		res, err := db.ExecContext(ctx, query, args...)
		if err != nil {
			tell("%s: %v", query, err)
			return
		}
		id, idErr := res.LastInsertId()
		n, nErr := res.RowsAffected()
		tell("%s: %d %v %d %v", query, id, idErr, n, nErr)
	}
	query := func(query string, args ...any) {
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			tell("%s: %v", query, err)
			return
		}
		defer rows.Close()
		types, err := rows.ColumnTypes()
		require.NoError(t, err)
		for _, c := range types {
			n, ok := c.Nullable()
			l, okl := c.Length()
			tell("%s %s %v %v %v %v %v", c.Name(), c.DatabaseTypeName(), c.ScanType(), n, ok, l, okl)
		}
		count := 0
		for rows.Next() {
			values := make([]any, len(types))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				tell("scan: %v", err)
			}
			line := ""
			for _, v := range values {
				line += fmt.Sprintf(" %v", *v.(*any))
			}
			if count++; count < 40 || count%97 == 0 {
				tell("%d:%s", count, line)
			}
		}
		tell("%s: %d rows, %v", query, count, rows.Err())
	}
	exec("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL, data BLOB, score REAL, at TIMESTAMP)")
	exec("INSERT INTO t (name, data, score, at) VALUES (?, ?, ?, ?)", "one", []byte{1, 2}, 1.5, time.Unix(1e9, 0).UTC())
	exec("INSERT INTO t (name) VALUES (:name)", sql.Named("name", "two"))
	exec("INSERT INTO t (name) VALUES (?)", nil)
	exec("no SQL")
	query("SELECT * FROM t")
	query("SELECT * FROM nowhere")
	query("SELECT id FROM t WHERE id > 100")
	query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000) SELECT i, 'row ' || i, zeroblob(i % 7) FROM n")
	query("SELECT abs(CASE WHEN i = 30 THEN -9223372036854775807 - 1 ELSE i END) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 60) SELECT i FROM n)")
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	s, err := tx.PrepareContext(ctx, "INSERT INTO t (name) VALUES (?)")
	require.NoError(t, err)
	for i := range 20 {
		_, err := s.ExecContext(ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	require.NoError(t, tx.Rollback())
	query("SELECT count(*) FROM t")
	var name string
	tell("%v %q", db.QueryRowContext(ctx, "SELECT name FROM t WHERE id = ?", 2).Scan(&name), name)
	tell("%v", db.QueryRowContext(ctx, "SELECT name FROM t WHERE id = ?", 99).Scan(&name))
	_, err = db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelLinearizable})
	tell("%v", err)
	tell("%v", db.PingContext(ctx))
	return told
}

// A program cannot tell a driver from the same on a thread.
func TestLikeTheDriver(t *testing.T) {
	for name := range drivers {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			require.Equal(t, story(t, open(t, "bare-"+name)), story(t, open(t, "thread-"+name)))
		})
	}
}

const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"

// The end of a ctx ends a query that runs, in the driver's own way, and the
// connection goes on. The query is seen to run: it calls a function of the test.
func TestCancelARunningQuery(t *testing.T) {
	for _, name := range []string{"thread-mattn-started", "thread-modernc-started"} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			db := open(t, name)
			db.SetMaxOpenConns(1)
			const query = "WITH RECURSIVE n(i) AS (SELECT started() UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"
			for _, run := range []func(context.Context) error{
				func(ctx context.Context) error { _, err := db.ExecContext(ctx, query); return err },
				func(ctx context.Context) error { var n int; return db.QueryRowContext(ctx, query).Scan(&n) },
			} {
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- run(ctx) }()
				select {
				case <-started:
				case err := <-ended:
					require.FailNow(t, "the query ends", "%v", err)
				}
				cancel()
				require.Error(t, <-ended)
				select { // it goes on until it is interrupted
				case <-started:
				default:
				}
				var one int
				require.NoError(t, db.QueryRow("SELECT 1").Scan(&one))
			}
		})
	}
}

// A query that is cancelled before it begins does not run.
func TestCancelledBefore(t *testing.T) {
	forEach(t, func(t *testing.T, db *sql.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := db.QueryContext(ctx, endless)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// Sync code uses a database from a thread of its own, and what it waits for
// calls back there, in the middle of a transaction.
func TestFromSyncCode(t *testing.T) {
	forEach(t, func(t *testing.T, db *sql.DB) {
		ctx, tsc := asyncsync.NewThreadSensitiveContext(t.Context())
		defer tsc.Close()
		n, err := asyncsync.ToThread(ctx, func(ctx context.Context) (n int, err error) {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return 0, err
			}
			defer func() { err = errors.Join(err, tx.Rollback()) }()
			_, err = asyncsync.FromThread(ctx, func(ctx context.Context) (int, error) {
				_, err := asyncsync.ToThread(ctx, func(ctx context.Context) (int, error) {
					_, err := tx.ExecContext(ctx, "CREATE TABLE t (x)")
					return 0, err
				})
				if err != nil {
					return 0, err
				}
				_, err = tx.ExecContext(ctx, "INSERT INTO t VALUES (1), (2), (3)")
				return 0, err
			})
			if err != nil {
				return 0, err
			}
			return n, tx.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n)
		})
		require.NoError(t, err)
		require.Equal(t, 3, n)
	})
}

// What only the driver can do is done on its thread.
func TestDo(t *testing.T) {
	testkit.Guard(t)
	conn, err := open(t, "thread-mattn").Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Raw(func(c any) error {
		return sqlthread.Do(t.Context(), c, func(_ context.Context, c driver.Conn) error {
			require.True(t, c.(*sqlite3.SQLiteConn).AutoCommit())
			return nil
		})
	}))
}

// A thousand rows, and one, beside the driver by itself.
func BenchmarkRows(b *testing.B) {
	for _, kind := range []string{"bare", "thread"} {
		for name := range drivers {
			db := open(b, kind+"-"+name)
			db.SetMaxOpenConns(1)
			_, err := db.Exec("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, score REAL)")
			require.NoError(b, err)
			_, err = db.Exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, 'name ' || i, i / 3.0 FROM n")
			require.NoError(b, err)
			for _, n := range []int{1, 1000} {
				b.Run(fmt.Sprintf("driver=%s/rows=%d/%s", name, n, kind), func(b *testing.B) {
					for b.Loop() {
						rows, err := db.Query("SELECT id, name, score FROM t WHERE id <= ?", n)
						require.NoError(b, err)
						got := 0
						for rows.Next() {
							var id int
							var name string
							var score float64
							if err := rows.Scan(&id, &name, &score); err != nil {
								b.Fatal(err)
							}
							got++
						}
						require.NoError(b, rows.Err())
						require.Equal(b, n, got)
					}
				})
			}
		}
	}
}
