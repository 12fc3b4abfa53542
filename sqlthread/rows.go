package sqlthread

import (
	"bytes"
	"database/sql/driver"
	"io"
	"reflect"
)

// How many rows one call fetches: few with the query itself, because many
// queries have no more, and then eight times as many each time.
const (
	firstRows = 16
	mostRows  = 1024
	// mostBytes ends a call early, so that what has been copied stays in the
	// caches.
	mostBytes = 256 << 10
)

// A rows is what all rows have. database/sql calls its methods one at a time.
// The driver's rows are touched only on the connection's thread; what is known
// of them here was read there.
type rows struct {
	c       *conn
	parent  driver.Rows
	has     int
	columns []string
	types   []columnType // nil if the driver tells nothing of types

	fetched []driver.Value // rows that were fetched, one after another
	next    int            // where in it the next row begins
	have    int            // how many rows are left in it; a row may have no columns
	limit   int            // rows to fetch in the next call
	err     error          // what comes after the rows that were fetched; nil if others do
	ended   drivers        // how the driver ended, if it did not return: it comes before err
	known   bool           // columns and types are those of this result set
	more    bool           // there is another result set after this one

	closed   bool // the driver's rows are closed
	closeErr error
}

// A columnType is what the driver says of a column.
type columnType struct {
	scan                  reflect.Type
	name                  string
	length                int64
	hasLength             bool
	nullable, hasNullable bool
	precision, scale      int64
	hasPrecisionScale     bool
}

// open makes r the rows of parent, and begins with them. It is called on the thread.
func (r *rows) open(c *conn, parent driver.Rows) {
	r.c, r.parent, r.has = c, parent, rowsHas(parent)
	r.begin()
}

// whole returns r as the type that has the interfaces of the driver's rows.
func (r *rows) whole() driver.Rows { return rowsOf[r.has](r) }

// begin reads what is known of a result set before its first row, and the first
// rows. It is called on the thread. The order matters: with some drivers the
// types depend on the current row.
func (r *rows) begin() {
	r.columns, r.types, r.known = nil, nil, false
	r.have, r.err, r.limit = 0, nil, firstRows
	r.ended.call(func() {
		r.columns = r.parent.Columns()
		if r.has&^rowsHasRowsNextResultSet != 0 {
			r.types = make([]columnType, len(r.columns))
			for i := range r.types {
				r.types[i] = r.columnType(i)
			}
		}
		r.known = true
		r.fetch()
	})
}

func (r *rows) columnType(i int) (t columnType) {
	if p, ok := r.parent.(driver.RowsColumnTypeScanType); ok {
		t.scan = p.ColumnTypeScanType(i)
	}
	if p, ok := r.parent.(driver.RowsColumnTypeDatabaseTypeName); ok {
		t.name = p.ColumnTypeDatabaseTypeName(i)
	}
	if p, ok := r.parent.(driver.RowsColumnTypeLength); ok {
		t.length, t.hasLength = p.ColumnTypeLength(i)
	}
	if p, ok := r.parent.(driver.RowsColumnTypeNullable); ok {
		t.nullable, t.hasNullable = p.ColumnTypeNullable(i)
	}
	if p, ok := r.parent.(driver.RowsColumnTypePrecisionScale); ok {
		t.precision, t.scale, t.hasPrecisionScale = p.ColumnTypePrecisionScale(i)
	}
	return t
}

// fetch fetches rows. It is called on the thread, by the call of ended: the rows
// that were fetched before the driver panicked come before that. After the last
// row of the last result set it closes the driver's rows, which saves a call.
func (r *rows) fetch() {
	n, size := len(r.columns), 0
	r.next, r.have, r.fetched = 0, 0, r.fetched[:0]
	for range r.limit {
		at := len(r.fetched)
		for range n {
			r.fetched = append(r.fetched, nil)
		}
		dest := r.fetched[at : at+n : at+n]
		if r.err = r.parent.Next(dest); r.err != nil {
			r.fetched = r.fetched[:at]
			break
		}
		for i, v := range dest {
			switch v := v.(type) {
			case []byte:
				// The bytes belong to the driver until its next row.
				dest[i] = bytes.Clone(v)
				size += len(v)
			case string:
				size += len(v)
			case driver.Rows:
				nested := &rows{}
				nested.open(r.c, v)
				dest[i] = nested.whole()
			}
		}
		r.have++
		if size > mostBytes {
			break
		}
	}
	r.limit = min(8*r.limit, mostRows)
	r.more = false
	if r.err == io.EOF {
		if p, ok := r.parent.(driver.RowsNextResultSet); ok {
			r.more = p.HasNextResultSet()
		}
		if !r.more {
			r.close()
		}
	}
}

// close closes the driver's rows. It is called on the thread.
func (r *rows) close() {
	if !r.closed {
		r.closed = true
		r.closeErr = r.parent.Close()
	}
}

func (r *rows) Columns() []string {
	if !r.known {
		r.ended.raise()
	}
	return r.columns
}

func (r *rows) Next(dest []driver.Value) error {
	if r.have == 0 && r.err == nil && r.ended.Returned() {
		err := r.c.onFor(&r.ended, func(driver.Conn) error { r.ended.call(r.fetch); return nil })
		if err != nil {
			return err
		}
	}
	if r.have == 0 {
		r.ended.raise()
		return r.err
	}
	r.have--
	r.next += copy(dest, r.fetched[r.next:r.next+len(r.columns)])
	return nil
}

// Close returns the error of closing the driver's rows, whenever that happened.
func (r *rows) Close() error {
	if !r.closed {
		if err := r.c.closing(func() error { r.close(); return nil }); err != nil {
			return err
		}
	}
	r.fetched, r.have, r.err, r.ended = nil, 0, io.EOF, drivers{}
	return r.closeErr
}

type rowsNextResultSet struct{ r *rows }

// HasNextResultSet is called at the end of a result set.
func (x rowsNextResultSet) HasNextResultSet() bool {
	r := x.r
	if r.err != io.EOF && !r.closed {
		// Not at the end yet: the driver knows.
		_ = r.c.on(func(driver.Conn) error {
			r.more = r.parent.(driver.RowsNextResultSet).HasNextResultSet()
			return nil
		})
	}
	return r.more
}

func (x rowsNextResultSet) NextResultSet() (err error) {
	r := x.r
	if r.closed {
		return io.EOF
	}
	on := r.c.onFor(&r.ended, func(driver.Conn) error {
		if err = r.parent.(driver.RowsNextResultSet).NextResultSet(); err == nil {
			r.begin()
		}
		return nil
	})
	if on != nil {
		return on
	}
	return err
}

type rowsColumnTypeScanType struct{ r *rows }

func (x rowsColumnTypeScanType) ColumnTypeScanType(i int) reflect.Type { return x.r.types[i].scan }

type rowsColumnTypeDatabaseTypeName struct{ r *rows }

func (x rowsColumnTypeDatabaseTypeName) ColumnTypeDatabaseTypeName(i int) string {
	return x.r.types[i].name
}

type rowsColumnTypeLength struct{ r *rows }

func (x rowsColumnTypeLength) ColumnTypeLength(i int) (length int64, ok bool) {
	return x.r.types[i].length, x.r.types[i].hasLength
}

type rowsColumnTypeNullable struct{ r *rows }

func (x rowsColumnTypeNullable) ColumnTypeNullable(i int) (nullable, ok bool) {
	return x.r.types[i].nullable, x.r.types[i].hasNullable
}

type rowsColumnTypePrecisionScale struct{ r *rows }

func (x rowsColumnTypePrecisionScale) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	return x.r.types[i].precision, x.r.types[i].scale, x.r.types[i].hasPrecisionScale
}
