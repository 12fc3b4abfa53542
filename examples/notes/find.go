package main

import (
	"context"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A filter selects notes, newest first. Its zero value selects all of them.
type filter struct {
	Query  string // words in title, body or address
	Tag    string
	ID     int64
	Before int64 // only notes older than this one
	Limit  int   // 0: no limit
}

const selectNotes = `
SELECT id, title, body, url, created,
	(SELECT group_concat(tag, ' ' ORDER BY tag) FROM note_tags WHERE note = id) AS tags
FROM notes
WHERE (:query = '' OR title LIKE :like ESCAPE '\' OR body LIKE :like ESCAPE '\' OR url LIKE :like ESCAPE '\')
	AND (:tag = '' OR EXISTS (SELECT 1 FROM note_tags WHERE note = id AND tag = :tag))
	AND (:id = 0 OR id = :id)
	AND (:before = 0 OR id < :before)
ORDER BY id DESC
LIMIT :limit`

// find returns the notes that f selects.
func (s *store) find(ctx context.Context, f filter) ([]note, error) {
	return query(ctx, s, "find notes", func(conn *sqlite.Conn) ([]note, error) {
		var notes []note
		err := sqlitex.Execute(conn, selectNotes, &sqlitex.ExecOptions{
			Named: map[string]any{
				":query":  f.Query,
				":like":   "%" + escapeLike(f.Query) + "%",
				":tag":    f.Tag,
				":id":     f.ID,
				":before": f.Before,
				":limit":  sqlLimit(f.Limit),
			},
			ResultFunc: func(row *sqlite.Stmt) error {
				notes = append(notes, note{
					ID:      row.GetInt64("id"),
					Title:   row.GetText("title"),
					Body:    row.GetText("body"),
					URL:     row.GetText("url"),
					Tags:    strings.Fields(row.GetText("tags")),
					Created: time.Unix(row.GetInt64("created"), 0),
				})
				return nil
			},
		})
		return notes, err
	})
}

// get returns one note, or errNoNote.
func (s *store) get(ctx context.Context, id int64) (note, error) {
	if id < 1 { // which would select all of them
		return note{}, errNoNote
	}
	notes, err := s.find(ctx, filter{ID: id})
	if err != nil {
		return note{}, err
	}
	if len(notes) == 0 {
		return note{}, errNoNote
	}
	return notes[0], nil
}

const selectTags = `
SELECT name, about, (SELECT count(*) FROM note_tags WHERE tag = name) AS notes
FROM tags
ORDER BY notes DESC, name
LIMIT :limit`

// tags returns the tags that most notes have, limit of them, or all if it is 0.
func (s *store) tags(ctx context.Context, limit int) ([]tag, error) {
	return query(ctx, s, "list tags", func(conn *sqlite.Conn) ([]tag, error) {
		var tags []tag
		err := sqlitex.Execute(conn, selectTags, &sqlitex.ExecOptions{
			Named: map[string]any{":limit": sqlLimit(limit)},
			ResultFunc: func(row *sqlite.Stmt) error {
				tags = append(tags, tag{
					Name:  row.GetText("name"),
					About: row.GetText("about"),
					Notes: int(row.GetInt64("notes")),
				})
				return nil
			},
		})
		return tags, err
	})
}

// batches returns how many imports there were.
func (s *store) batches(ctx context.Context) (int, error) {
	return query(ctx, s, "count imports", func(conn *sqlite.Conn) (int, error) {
		return count(conn, `SELECT count(*) FROM batches`)
	})
}

// count returns the one number that a query yields.
func count(conn *sqlite.Conn, sql string, args ...any) (int, error) {
	var n int
	err := sqlitex.Execute(conn, sql, &sqlitex.ExecOptions{
		Args: args,
		ResultFunc: func(row *sqlite.Stmt) error {
			n = row.ColumnInt(0)
			return nil
		},
	})
	return n, err
}

// escapeLike makes s match itself in a LIKE pattern with \ as its escape.
func escapeLike(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}

// sqlLimit is n as SQL has it, where any negative number means no limit.
func sqlLimit(n int) int {
	if n == 0 {
		return -1
	}
	return n
}
