// Package odbc has the connections of github.com/alexbrainman/odbc, which is over
// unixODBC, stay on their threads. Its tests look at package sqlthread from the side
// of a library of C: every function of ODBC records the OS thread that calls it.
package odbc

import (
	"database/sql"
	"database/sql/driver"

	_ "github.com/alexbrainman/odbc" // registers itself
)

// Bare returns the driver as it is. Its QueryContext runs the query on a goroutine of
// its own, which is on any thread.
func Bare() driver.Driver {
	db, err := sql.Open("odbc", "")
	if err != nil {
		panic(err) // it opens nothing
	}
	return db.Driver()
}

// Driver returns the driver for package sqlthread: the goroutine that calls a method
// calls ODBC. It hides QueryContext, so that package database/sql prepares a
// statement and queries that.
//
// A statement that runs does not see the end of its ctx. It runs to its end. Exec
// then succeeds; the rows of a Query end with the error of the ctx, and a
// transaction is rolled back. The function of ODBC to end a statement early is
// SQLCancel, and it has to be called from another thread. Drivers of databases may
// take that badly: that of libsqliteodbc frees the statement which is running, and
// the process can crash.
func Driver() driver.Driver { return threaded{Bare()} }

type threaded struct{ driver.Driver }

func (d threaded) Open(dsn string) (driver.Conn, error) {
	c, err := d.Driver.Open(dsn)
	if err != nil {
		return nil, err
	}
	return struct{ driver.Conn }{c}, nil
}
