package main

import (
	"context"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/task"
	"zombiezen.com/go/sqlite"
)

// importLinks stores a note for each link, titled with what the link's page is
// called, in one transaction: all of them or, if one cannot be looked up, none.
//
// The look-ups go through the network and happen in the middle of the
// transaction, all at the same time. The thread waits for them; each task
// writes its note back with an ordinary call, which that thread runs during
// its wait. Other requests stay in the queue until the transaction has ended:
// a waiting thread runs only what it waits for.
func (s *store) importLinks(ctx context.Context, links, tags []string) error {
	return s.do(ctx, "import", func(ctx context.Context, conn *sqlite.Conn) error {
		return s.atomically(conn, func() error {
			if err := exec(conn, `INSERT INTO batches DEFAULT VALUES`); err != nil {
				return err
			}
			batch := conn.LastInsertRowID()
			return forEach(ctx, links, func(ctx context.Context, link string) error {
				return s.importLink(ctx, batch, link, tags)
			})
		})
	})
}

// importLink is the task of one link. It runs on an ordinary goroutine.
func (s *store) importLink(ctx context.Context, batch int64, link string, tags []string) error {
	title, err := s.lookups.title(ctx, link)
	if err != nil {
		return err
	}
	return s.do(ctx, "import link", func(ctx context.Context, conn *sqlite.Conn) error {
		return s.atomically(conn, func() error {
			err := exec(conn, `INSERT INTO notes (title, url, batch) VALUES (?, ?, ?)`, title, link, batch)
			if err != nil {
				return err
			}
			return s.attach(ctx, conn, conn.LastInsertRowID(), tags)
		})
	})
}

// forEach is called on the database's thread. It runs fn for every item, all
// at the same time on ordinary goroutines, and waits for them. Calls to the
// store that fn makes with its ctx are run by this very thread while it waits.
func forEach[T any](ctx context.Context, items []T, fn func(context.Context, T) error) error {
	if len(items) == 0 {
		return nil
	}
	_, err := asyncsync.FromThread(ctx, func(ctx context.Context) (struct{}, error) {
		_, group := task.NewGroup(ctx)
		for _, item := range items {
			group.Go(func(ctx context.Context) error { return fn(ctx, item) })
		}
		return struct{}{}, group.Wait(ctx)
	})
	return err
}
