package sqlthread_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"modernc.org/sqlite"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/sqlthread"
)

// As drivers do, in an init function: once.
func init() {
	sqlthread.Register("sqlite-thread", &sqlite.Driver{}, asyncsync.WithName("database"))
}

func ExampleRegister() {
	db, err := sql.Open("sqlite-thread", ":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // one database in memory for each connection
	if _, err := db.Exec("CREATE TABLE notes (text); INSERT INTO notes VALUES ('hello')"); err != nil {
		fmt.Println(err)
		return
	}
	var text string
	fmt.Println(db.QueryRow("SELECT text FROM notes").Scan(&text), text)
	// Output: <nil> hello
}

// A driver that has a connector of its own, or needs one.
func ExampleWrapConnector() {
	db := sql.OpenDB(sqlthread.WrapConnector(memory{}))
	defer db.Close()
	fmt.Println(db.Ping())
	// Output: <nil>
}

type memory struct{}

func (memory) Connect(context.Context) (driver.Conn, error) {
	return (&sqlite.Driver{}).Open(":memory:")
}
func (memory) Driver() driver.Driver { return &sqlite.Driver{} }

// Do is for what database/sql has no method for.
func ExampleDo() {
	db := sql.OpenDB(sqlthread.WrapConnector(memory{}))
	defer db.Close()
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	err = conn.Raw(func(c any) error {
		return sqlthread.Do(ctx, c, func(_ context.Context, own driver.Conn) error {
			_, serializes := own.(interface{ Serialize() ([]byte, error) })
			fmt.Println(serializes)
			return nil
		})
	})
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

func ExampleWrap() {
	c, err := sqlthread.Wrap(&sqlite.Driver{}).Open(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, resets := c.(driver.SessionResetter)
	_, checks := c.(driver.NamedValueChecker)
	fmt.Println(resets, checks)
	fmt.Println(c.Close())
	// Output:
	// true false
	// <nil>
}

// Functions that are called below Pin find their connection in the ctx: all that the
// job does is done on one thread.
func ExamplePin() {
	db := sql.OpenDB(sqlthread.WrapConnector(memory{})) // a database for each connection
	defer db.Close()
	save := func(ctx context.Context, note string) error {
		conn, err := sqlthread.Conn(ctx, db)
		if err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, "INSERT INTO notes VALUES (?)", note)
		return err
	}
	err := sqlthread.Pin(context.Background(), db, func(ctx context.Context) error {
		conn, err := sqlthread.Conn(ctx, db)
		if err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, "CREATE TEMP TABLE notes (text)"); err != nil {
			return err
		}
		for _, note := range []string{"hello", "world"} {
			if err := save(ctx, note); err != nil {
				return err
			}
		}
		var n int
		err = conn.QueryRowContext(ctx, "SELECT count(*) FROM notes").Scan(&n)
		fmt.Println(n, "notes")
		return err
	})
	fmt.Println(err, db.Stats().InUse)
	// Output:
	// 2 notes
	// <nil> 0
}
