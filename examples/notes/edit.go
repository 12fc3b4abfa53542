package main

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// add stores a note and returns its id.
func (s *store) add(ctx context.Context, d draft) (id int64, err error) {
	err = s.do(ctx, "add note", func(ctx context.Context, conn *sqlite.Conn) error {
		return s.atomically(conn, func() error {
			if err := exec(conn, `INSERT INTO notes (title, body) VALUES (?, ?)`, d.Title, d.Body); err != nil {
				return err
			}
			id = conn.LastInsertRowID()
			return s.attach(ctx, conn, id, d.Tags)
		})
	})
	return id, err
}

// tag adds tags to a note.
func (s *store) tag(ctx context.Context, id int64, tags []string) error {
	return s.do(ctx, "tag note", func(ctx context.Context, conn *sqlite.Conn) error {
		return s.atomically(conn, func() error {
			n, err := count(conn, `SELECT count(*) FROM notes WHERE id = ?`, id)
			if err != nil {
				return err
			}
			if n == 0 {
				return errNoNote
			}
			return s.attach(ctx, conn, id, tags)
		})
	})
}

// remove deletes a note.
func (s *store) remove(ctx context.Context, id int64) error {
	return s.do(ctx, "remove note", func(_ context.Context, conn *sqlite.Conn) error {
		if err := exec(conn, `DELETE FROM notes WHERE id = ?`, id); err != nil {
			return err
		}
		if conn.Changes() == 0 {
			return errNoNote
		}
		return nil
	})
}

// attach gives tags to a note, in the savepoint of its caller. Tags that
// nobody used before are looked up first, all at the same time, and written by
// the tasks that looked them up: nested calls, inside this one.
//
// Nobody else can create one of them meanwhile, because nobody else runs here
// while this call waits. So each tag is looked up once.
func (s *store) attach(ctx context.Context, conn *sqlite.Conn, id int64, tags []string) error {
	unknown, err := unknownTags(conn, tags)
	if err != nil {
		return err
	}
	err = forEach(ctx, unknown, func(ctx context.Context, name string) error {
		about, err := s.lookups.about(ctx, name)
		if err != nil {
			return err
		}
		return s.do(ctx, "insert tag", func(_ context.Context, conn *sqlite.Conn) error {
			return exec(conn, `INSERT INTO tags (name, about) VALUES (?, ?)`, name, about)
		})
	})
	if err != nil {
		return err
	}
	for _, name := range tags {
		if err := exec(conn, `INSERT OR IGNORE INTO note_tags (note, tag) VALUES (?, ?)`, id, name); err != nil {
			return err
		}
	}
	return nil
}

// unknownTags returns those of names that have no row yet.
func unknownTags(conn *sqlite.Conn, names []string) ([]string, error) {
	var unknown []string
	for _, name := range names {
		n, err := count(conn, `SELECT count(*) FROM tags WHERE name = ?`, name)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			unknown = append(unknown, name)
		}
	}
	return unknown, nil
}
