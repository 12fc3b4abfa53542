package main

import (
	"context"
	"errors"

	"asyncsync.dev/task"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const schema = `
	CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount INTEGER NOT NULL, pieces INTEGER NOT NULL);
	CREATE TABLE addresses (id INTEGER PRIMARY KEY REFERENCES orders, city TEXT NOT NULL);
`

// A store keeps orders in one SQLite connection. It was opened on the thread of the
// shop, and all of its functions run there.
//
// A function that does not wait has the connection for itself until it returns. One
// that waits between its statements holds tx, and no statement is open meanwhile.
type store struct {
	conn *sqlite.Conn
	tx   task.Mutex // of transactions

	rollbacks int
	mixed     int // transactions that began inside of another: there must be none
}

func openStore(path string) (*store, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		return nil, err
	}
	if err := sqlitex.ExecuteScript(conn, schema, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &store{conn: conn}, nil
}

func (s *store) close() error { return s.conn.Close() }

// atomically runs fn in a transaction. fn may wait. All that it writes is kept, or,
// if it ends in any other way than by returning nil, nothing.
func (s *store) atomically(ctx context.Context, fn func(context.Context) error) (err error) {
	if err := s.tx.Lock(ctx); err != nil {
		return err
	}
	defer s.tx.Unlock()
	if !s.conn.AutocommitEnabled() {
		s.mixed++
	}
	if err := s.exec("BEGIN"); err != nil {
		return err
	}
	kept := false
	// Deferred, because fn may also panic or end its goroutine. It does not wait, and
	// so is done although ctx may have ended.
	defer func() {
		if !kept {
			s.rollbacks++
			err = errors.Join(err, s.exec("ROLLBACK"))
		}
	}()
	if err := fn(ctx); err != nil {
		return err
	}
	if err := s.exec("COMMIT"); err != nil {
		return err
	}
	kept = true
	return nil
}

// add stores an order and the city that it goes to, or nothing.
func (s *store) add(ctx context.Context, o order, amount int, city func(context.Context) (string, error)) error {
	return s.atomically(ctx, func(ctx context.Context) error {
		if err := s.exec("INSERT INTO orders VALUES (?, ?, ?, ?)", o.id, o.customer, amount, o.count*len(o.items)); err != nil {
			return err
		}
		where, err := city(ctx) // others run on this thread meanwhile
		if err != nil {
			return err
		}
		return s.exec("INSERT INTO addresses VALUES (?, ?)", o.id, where)
	})
}

// A row is an order as it is stored.
type row struct {
	id, amount, pieces int
	customer, city     string
}

// rows returns the order with that id, or all orders for id 0. It does not
// wait. It may be called inside another transaction, and then sees the middle
// of it. Code that does not want that reads only what is complete, as the join
// here does.
func (s *store) rows(id int) (rows []row, err error) {
	err = sqlitex.Execute(s.conn, `
		SELECT o.id, amount, pieces, customer, city FROM orders o JOIN addresses a ON a.id = o.id
		WHERE ?1 IN (0, o.id) ORDER BY o.id`,
		&sqlitex.ExecOptions{Args: []any{id}, ResultFunc: func(stmt *sqlite.Stmt) error {
			rows = append(rows, row{
				id: stmt.ColumnInt(0), amount: stmt.ColumnInt(1), pieces: stmt.ColumnInt(2),
				customer: stmt.ColumnText(3), city: stmt.ColumnText(4),
			})
			return nil
		}})
	return rows, err
}

// exec runs one statement and discards its rows.
func (s *store) exec(sql string, args ...any) error {
	return sqlitex.Execute(s.conn, sql, &sqlitex.ExecOptions{Args: args})
}
