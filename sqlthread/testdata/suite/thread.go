// This file is put into a copy of github.com/mattn/go-sqlite3 by TestTheDriversSuite.
package sqlite3

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime/debug"
	"strings"

	"asyncsync.dev/sqlthread"
)

// registerOnThread is in the place of sql.Register.
func registerOnThread(name string, d driver.Driver) { sqlthread.Register(name, d) }

// rawOnThread is in the place of the method Raw of c. What it gives f is the driver's
// own connection, on its thread.
func rawOnThread(c *sql.Conn, f func(any) error) error {
	return c.Raw(func(raw any) error {
		return sqlthread.Do(context.Background(), raw, func(_ context.Context, own driver.Conn) error { return f(own) })
	})
}

// onThread is called where the driver opens a connection. It fails if package
// sqlthread does not: a test that would pass without it does not count.
func onThread() error {
	if !strings.Contains(string(debug.Stack()), "asyncsync.dev/sqlthread.") {
		return errors.New("the connection is opened past sqlthread")
	}
	return nil
}
