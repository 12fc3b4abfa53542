package sqlthread

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/petermattis/goid"
)

// A fake is a driver whose connections have every optional interface, and check
// that everything is called on the thread that the connection was opened on.
type fake struct {
	t *testing.T

	mu      sync.Mutex // guards what follows
	conns   int
	calls   []string
	open    int
	threads map[int]int64 // of the connections
}

func (f *fake) note(id int, call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	// A thread is a goroutine that is locked to it.
	if got := goid.Get(); got != f.threads[id] {
		f.t.Errorf("%s of connection %d is called on goroutine %d, not %d", call, id, got, f.threads[id])
	}
}

// take returns what was called since it was called last.
func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fake) Open(string) (driver.Conn, error) {
	f.mu.Lock()
	f.conns++
	f.open++
	id := f.conns
	if f.threads == nil {
		f.threads = make(map[int]int64)
	}
	f.threads[id] = goid.Get()
	f.mu.Unlock()
	return &fakeConn{f, id}, nil
}

func (f *fake) OpenConnector(name string) (driver.Connector, error) {
	if name == "bad" {
		return nil, errors.New("a bad name")
	}
	return &fakeConnector{f: f}, nil
}

type fakeConnector struct {
	f      *fake
	closed bool
}

func (c *fakeConnector) Connect(context.Context) (driver.Conn, error) { return c.f.Open("") }
func (c *fakeConnector) Driver() driver.Driver                        { return c.f }
func (c *fakeConnector) Close() error                                 { c.closed = true; return nil }

type fakeConn struct {
	f  *fake
	id int
}

func (c *fakeConn) note(call string) { c.f.note(c.id, call) }

func (c *fakeConn) Close() error {
	c.note("Close")
	c.f.mu.Lock()
	c.f.open--
	c.f.mu.Unlock()
	return nil
}
func (c *fakeConn) Ping(context.Context) error { c.note("Ping"); return nil }
func (c *fakeConn) Begin() (driver.Tx, error)  { c.note("Begin"); return fakeTx{c}, nil }
func (c *fakeConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	c.note("BeginTx")
	return fakeTx{c}, nil
}
func (c *fakeConn) Prepare(query string) (driver.Stmt, error) {
	c.note("Prepare")
	return &fakeStmt{c, query}, nil
}
func (c *fakeConn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	c.note("PrepareContext")
	return &fakeStmt{c, query}, nil
}
func (c *fakeConn) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.note("ExecContext")
	switch query {
	case "panic":
		panic(errPanic)
	case "goexit":
		runtime.Goexit()
	case "skip":
		return nil, driver.ErrSkip
	}
	return fakeResult{c, query}, nil
}
func (c *fakeConn) QueryContext(_ context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.note("QueryContext")
	return newFakeRows(c, query)
}
func (c *fakeConn) ResetSession(context.Context) error { c.note("ResetSession"); return nil }
func (c *fakeConn) IsValid() bool                      { c.note("IsValid"); return true }
func (c *fakeConn) CheckNamedValue(v *driver.NamedValue) error {
	c.note("CheckNamedValue")
	v.Value = fmt.Sprint(v.Value)
	return nil
}

var errPanic = errors.New("a panic of the driver")

type fakeTx struct{ c *fakeConn }

func (t fakeTx) Commit() error   { t.c.note("Commit"); return nil }
func (t fakeTx) Rollback() error { t.c.note("Rollback"); return nil }

type fakeResult struct {
	c     *fakeConn
	query string
}

func (r fakeResult) LastInsertId() (int64, error) {
	r.c.note("LastInsertId")
	endAs(r.query)
	return 7, nil
}
func (r fakeResult) RowsAffected() (int64, error) {
	r.c.note("RowsAffected")
	return 0, errors.New("not known")
}

// endAs ends as query says, which may be "later panic", "later goexit", or something else.
func endAs(query string) {
	switch query {
	case "later panic":
		panic(errPanic)
	case "later goexit":
		runtime.Goexit()
	}
}

type fakeStmt struct {
	c     *fakeConn
	query string
}

func (s *fakeStmt) Close() error  { s.c.note("Stmt.Close"); return nil }
func (s *fakeStmt) NumInput() int { s.c.note("NumInput"); endAs(s.query); return -1 }
func (s *fakeStmt) Exec([]driver.Value) (driver.Result, error) {
	s.c.note("Stmt.Exec")
	return fakeResult{s.c, s.query}, nil
}
func (s *fakeStmt) Query([]driver.Value) (driver.Rows, error) {
	s.c.note("Stmt.Query")
	return newFakeRows(s.c, s.query)
}
func (s *fakeStmt) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	s.c.note("Stmt.ExecContext")
	return fakeResult{s.c, s.query}, nil
}
func (s *fakeStmt) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	s.c.note("Stmt.QueryContext")
	return newFakeRows(s.c, s.query)
}
func (s *fakeStmt) CheckNamedValue(*driver.NamedValue) error {
	s.c.note("Stmt.CheckNamedValue")
	return driver.ErrSkip
}
func (s *fakeStmt) ColumnConverter(int) driver.ValueConverter {
	s.c.note("ColumnConverter")
	return fakeConverter{s.c}
}

type fakeConverter struct{ c *fakeConn }

func (x fakeConverter) ConvertValue(v any) (driver.Value, error) {
	x.c.note("ConvertValue")
	return driver.DefaultParameterConverter.ConvertValue(v)
}

// fakeRows counts down. Its bytes are in one buffer, as a driver's may be.
type fakeRows struct {
	c      *fakeConn
	left   int
	fails  error // instead of the end
	ends   string
	sets   int // result sets after this one
	buffer []byte
	none   bool // no columns
	closed int
}

func newFakeRows(c *fakeConn, query string) (driver.Rows, error) {
	r := &fakeRows{c: c, buffer: make([]byte, 1)}
	if query == "none" {
		r.none, r.left = true, 40
		return r, nil
	}
	if _, err := fmt.Sscanf(query, "later %s after %d", &r.ends, &r.left); err == nil {
		return r, nil
	}
	var fails int
	if _, err := fmt.Sscan(query, &r.left, &r.sets, &fails); err != nil {
		return nil, err
	}
	if fails != 0 {
		r.fails = errors.New("in the middle")
	}
	return r, nil
}

func (r *fakeRows) Columns() []string {
	r.c.note("Columns")
	if r.left < 0 {
		endAs("later " + r.ends)
	}
	if r.none {
		return nil
	}
	return []string{"n", "b"}
}
func (r *fakeRows) Close() error {
	r.c.note("Rows.Close")
	if r.closed++; r.closed > 1 {
		r.c.f.t.Error("rows are closed twice")
	}
	return nil
}
func (r *fakeRows) Next(dest []driver.Value) error {
	r.c.note("Next")
	if r.left == 0 {
		endAs("later " + r.ends)
		if r.fails != nil {
			return r.fails
		}
		return io.EOF
	}
	r.left--
	if !r.none {
		r.buffer[0] = byte(r.left)
		dest[0], dest[1] = int64(r.left), r.buffer
	}
	return nil
}
func (r *fakeRows) HasNextResultSet() bool { r.c.note("HasNextResultSet"); return r.sets > 0 }
func (r *fakeRows) NextResultSet() error {
	r.c.note("NextResultSet")
	if r.sets == 0 {
		return io.EOF
	}
	r.sets, r.left = r.sets-1, 3
	return nil
}
func (r *fakeRows) ColumnTypeScanType(int) reflect.Type {
	r.c.note("ColumnTypeScanType")
	return reflect.TypeFor[int64]()
}
func (r *fakeRows) ColumnTypeDatabaseTypeName(int) string {
	r.c.note("ColumnTypeDatabaseTypeName")
	return "FAKE"
}
func (r *fakeRows) ColumnTypeLength(int) (int64, bool) {
	r.c.note("ColumnTypeLength")
	return 9, true
}
func (r *fakeRows) ColumnTypeNullable(int) (nullable, ok bool) {
	r.c.note("ColumnTypeNullable")
	return true, true
}
func (r *fakeRows) ColumnTypePrecisionScale(int) (precision, scale int64, ok bool) {
	r.c.note("ColumnTypePrecisionScale")
	return 5, 2, true
}
