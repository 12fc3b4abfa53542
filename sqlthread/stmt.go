package sqlthread

import (
	"context"
	"database/sql/driver"
)

// A stmt is what all statements have. The driver's statement is touched only on
// the connection's thread.
type stmt struct {
	c     *conn
	s     driver.Stmt
	input int
	ended drivers // while input was read
}

func (c *conn) prepared(ctx context.Context, prepare func(context.Context, driver.Conn) (driver.Stmt, error)) (driver.Stmt, error) {
	w := &stmt{c: c}
	k := hop{c: c}
	err := k.doFor(ctx, func(ctx context.Context, p driver.Conn) error {
		k.begin()
		s, err := prepare(ctx, p)
		if err != nil {
			return err
		}
		w.s = s
		w.ended.call(func() { w.input = s.NumInput() })
		return nil
	}, &w.ended)
	if err != nil {
		return nil, err
	}
	return stmtOf[stmtHas(w.s)](w), nil
}

func (s *stmt) Close() error { return s.c.closing(s.s.Close) }

func (s *stmt) NumInput() int {
	s.ended.raise()
	return s.input
}

func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.c.executed(context.Background(), func(context.Context, driver.Conn) (driver.Result, error) {
		return s.s.Exec(args) //lint:ignore SA1019 it is what database/sql calls where there is no ExecContext
	})
}

func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.c.queried(context.Background(), func(context.Context, driver.Conn) (driver.Rows, error) {
		return s.s.Query(args) //lint:ignore SA1019 it is what database/sql calls where there is no QueryContext
	})
}

type stmtExecContext struct{ s *stmt }

func (x stmtExecContext) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return x.s.c.executed(ctx, func(ctx context.Context, _ driver.Conn) (driver.Result, error) {
		return x.s.s.(driver.StmtExecContext).ExecContext(ctx, args)
	})
}

type stmtQueryContext struct{ s *stmt }

func (x stmtQueryContext) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return x.s.c.queried(ctx, func(ctx context.Context, _ driver.Conn) (driver.Rows, error) {
		return x.s.s.(driver.StmtQueryContext).QueryContext(ctx, args)
	})
}

type stmtNamedValueChecker struct{ s *stmt }

func (x stmtNamedValueChecker) CheckNamedValue(v *driver.NamedValue) error {
	return x.s.c.on(func(driver.Conn) error { return x.s.s.(driver.NamedValueChecker).CheckNamedValue(v) })
}

type stmtColumnConverter struct{ s *stmt }

func (x stmtColumnConverter) ColumnConverter(i int) driver.ValueConverter { return converter{x.s, i} }

// A converter converts values of one parameter, on the thread.
type converter struct {
	s *stmt
	i int
}

func (x converter) ConvertValue(v any) (converted driver.Value, err error) {
	err = x.s.c.on(func(driver.Conn) (err error) {
		//lint:ignore SA1019 it is what database/sql calls
		converted, err = x.s.s.(driver.ColumnConverter).ColumnConverter(x.i).ConvertValue(v)
		return err
	})
	return converted, err
}
