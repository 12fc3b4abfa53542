package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/network"
	"asyncsync.dev/portal"
	"asyncsync.dev/task"
)

// A server is what connections of both kinds share.
type server struct {
	log       *slog.Logger
	room      *room
	portal    *portal.Portal
	members   *task.Group
	accepting context.Context // ends when the server stops
	patience  time.Duration
}

// addresses are where a server listens.
type addresses struct{ tcp, http []string }

// An account is what a server tells when it has stopped.
type account struct {
	stored  int
	syncs   int // calls of the journal's append
	strikes int // that the portal has accepted
	room    map[int]int
	journal map[int]int
	clock   map[int]int
}

// serve is the main task. It calls ready when it listens, serves until stop is closed or
// something that must not fail does, and then stops in an order in which each step finds
// what it needs:
//
//  1. Nobody is accepted any more, and nothing more is read.
//  2. HTTP requests under way are answered.
//  3. The portal closes: what the clock has sent is done.
//  4. The room closes: what was accepted is stored.
//  5. Members get what they have not had, and a good-bye.
//  6. The journal is closed, on its thread.
func serve(ctx context.Context, o options, log *slog.Logger, stop <-chan struct{}, ready func(addresses)) (_ *account, err error) {
	_, thread := asyncsync.NewThreadSensitiveContext(ctx, asyncsync.WithName("journal"))
	defer func() { err = errors.Join(err, thread.Close()) }()
	s := &server{log: log, patience: o.patience}
	if s.room, err = openRoom(ctx, o.journal, thread); err != nil {
		return nil, err
	}
	// What must not fail: if one of these does, running ends.
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	running, g := task.NewGroup(running)
	// The keeper is not in the group: it goes on when something else has failed.
	keeper := task.Go(ctx, func(ctx context.Context) (int, error) {
		defer fail(errors.New("nothing is stored any more"))
		return 0, s.room.keep(ctx)
	}, task.Named("keeper"))
	defer func() {
		s.room.shut()
		_, failed := keeper.Wait(ctx) // has been waited for, unless we fail
		err = errors.Join(err, failed, s.room.close(ctx))
	}()

	tcp, err := network.ListenAll(ctx, "tcp", o.hosts, o.tcp)
	if err != nil {
		return nil, err
	}
	defer closeAll(tcp)
	web, err := network.ListenAll(ctx, "tcp", o.hosts, o.http)
	if err != nil {
		return nil, err
	}
	defer closeAll(web)

	if s.portal, err = portal.Open(ctx); err != nil {
		return nil, err
	}
	// The members' errors are no failures of the group; see member.
	_, s.members = task.NewGroup(ctx, task.NoCancel())
	s.members.SetLimit(o.members)
	var stopAccepting context.CancelCauseFunc
	s.accepting, stopAccepting = context.WithCancelCause(running)
	for _, l := range tcp {
		g.Go(func(context.Context) error {
			defer l.Close()
			if err := network.Serve(s.accepting, l, s.members, s.member); !errors.Is(err, errClosing) {
				return err
			}
			return nil
		}, task.Named("accept"))
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)}
	for _, l := range web {
		g.Go(func(ctx context.Context) error {
			_, err := task.Await(ctx, func(context.Context) (int, error) { return 0, server.Serve(l) })
			if !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}, task.Named("http"))
	}
	clock := startClock(s.portal, s.room, o.strike)
	ready(addresses{listening(tcp), listening(web)})

	_, _, err = task.Recv(running, stop) // returns why running has ended, if that is first
	begun := time.Now()
	if err == nil {
		log.Info("stopping")
	}

	stopAccepting(errClosing)
	s.room.stopping = true
	s.room.more.ring()

	_, failed := task.Await(ctx, func(ctx context.Context) (int, error) {
		patient, cancel := context.WithTimeout(ctx, o.patience)
		defer cancel()
		if err := server.Shutdown(patient); err != nil {
			// A client that has connected and never asked is one of them.
			log.Warn("connections over HTTP are cut off", "err", err)
			return 0, server.Close()
		}
		return 0, nil
	})
	err = errors.Join(err, failed)

	clock.ticker.stop()
	err = errors.Join(err, s.portal.Close(nil))
	if _, _, failed := task.Recv(ctx, clock.ticker.ended); failed != nil {
		return nil, errors.Join(err, failed)
	}

	s.room.shut()
	_, failed = keeper.Wait(ctx)
	err = errors.Join(err, failed, g.Wait(ctx), s.members.Wait(ctx))

	a := &account{stored: s.room.last, strikes: clock.accepted, room: s.room.threads, clock: clock.ticker.threads}
	_, failed = asyncsync.ToThread(ctx, func(context.Context) (int, error) {
		a.journal, a.syncs = s.room.journal.threads, s.room.journal.syncs
		return 0, nil
	}, asyncsync.On(thread))
	err = errors.Join(err, failed)
	if err == nil {
		log.Info("stopped", "messages", a.stored, "after", time.Since(begun).Round(time.Millisecond))
	}
	return a, err
}

// shut has the room accept nothing more. keep ends when it has stored what it has.
func (r *room) shut() {
	r.closing = true
	r.stirred.ring()
}

func listening(listeners []net.Listener) (all []string) {
	for _, l := range listeners {
		all = append(all, l.Addr().String())
	}
	return all
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close() // for the second time, mostly
	}
}
