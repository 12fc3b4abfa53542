package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"asyncsync.dev/network"
	"asyncsync.dev/task"
)

// A line has at most so many bytes.
const longestLine = 4096

// member is the task of a connection over TCP. It reads, and a second task
// writes. Errors of a client are logged: they concern no other client.
func (s *server) member(ctx context.Context, c net.Conn) error {
	// When the server stops, reading ends, and writing goes on.
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(s.accepting, func() { stop(errClosing) })()

	m := &member{server: s, c: c, in: bufio.NewReaderSize(reader{reading, c}, longestLine)}
	defer func() { delete(s.room.names, m.name) }()
	err := m.introduce(ctx)
	if err == nil {
		err = m.talk(ctx, stop)
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errClosing) {
		s.log.Info("a member has left", "name", m.name, "address", c.RemoteAddr(), "err", err)
	}
	m.leave(ctx)
	return nil
}

// A member is a client connected over TCP.
type member struct {
	server *server
	c      net.Conn
	in     *bufio.Reader
	name   string

	left bool // nothing more is read; then till is the last message to be written
	till int
}

// A reader is a connection as an io.Reader that parks the task.
type reader struct {
	ctx context.Context
	c   net.Conn
}

func (r reader) Read(b []byte) (int, error) { return network.Read(r.ctx, r.c, b) }

// line reads a line. An incomplete line does not count: a message is complete
// at the end of its line.
func (m *member) line() (string, error) {
	line, err := m.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = fmt.Errorf("a line of more than %d bytes", longestLine)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(line)), nil
}

// write writes lines, and gives up on a client that does not take them.
func (m *member) write(ctx context.Context, text string) error {
	return task.Timeout(ctx, m.server.patience, func(ctx context.Context) error {
		_, err := network.Write(ctx, m.c, []byte(text))
		return err
	})
}

// introduce asks for a name until there is a good one.
func (m *member) introduce(ctx context.Context) error {
	for question := "* what is your name?\n"; ; {
		if err := m.write(ctx, question); err != nil {
			return err
		}
		name, err := m.line()
		if err != nil {
			return err
		}
		// There is no wait between the look and the entry, and so nobody in between.
		switch names := m.server.room.names; {
		case !validName(name):
			question = fmt.Sprintf("* %v. Another one?\n", errName)
		case names[name]:
			question = fmt.Sprintf("* %v. Another one?\n", errTaken)
		default:
			names[name] = true
			m.name = name
			return nil
		}
	}
}

// talk reads what the member says while a second task writes what all say.
func (m *member) talk(ctx context.Context, stop context.CancelCauseFunc) error {
	r := m.server.room
	after := r.last
	writer := task.Go(ctx, func(ctx context.Context) (int, error) {
		err := m.deliver(ctx, after)
		stop(err) // who cannot be written to is not read from
		return 0, err
	}, task.Named("writer"))
	err := m.listen(ctx)
	// What the member has said it is still to see.
	m.left, m.till = true, r.last
	r.more.ring()
	_, failed := writer.Wait(ctx)
	return errors.Join(err, failed)
}

// listen has all hear what the member says, until it says no more.
func (m *member) listen(ctx context.Context) error {
	for {
		text, err := m.line()
		if err != nil {
			return err
		}
		if text == "" {
			continue
		}
		if _, err := m.server.room.say(ctx, m.name, text); err != nil {
			// The answer to one who was understood is the line that all get.
			if err := m.write(ctx, fmt.Sprintf("* not said: %v\n", err)); err != nil {
				return err
			}
		}
	}
}

// deliver writes messages as they come, those after a number, until there will be no
// more for this member.
func (m *member) deliver(ctx context.Context, after int) error {
	r := m.server.room
	if err := m.write(ctx, fmt.Sprintf("* welcome, %s\n", m.name)); err != nil {
		return err
	}
	for {
		r.seen()
		messages, missed := r.since(after)
		var lines strings.Builder
		if missed > 0 {
			fmt.Fprintf(&lines, "* you were too slow, and have missed %d messages\n", missed)
		}
		for _, msg := range messages {
			fmt.Fprintln(&lines, msg)
		}
		after = max(after, r.last)
		switch {
		case lines.Len() > 0:
			if err := m.write(ctx, lines.String()); err != nil {
				return err
			}
		case r.closed || m.left && after >= m.till && !r.stopping:
			return nil
		default:
			if err := r.more.wait(ctx); err != nil {
				return err
			}
		}
	}
}

// leave says good-bye in a way that the client receives it. If a connection is
// closed while there is something to read, the system resets it, and the client
// loses the messages that it has not read yet. So the server closes its writing
// side, and reads and discards what comes until the client has closed its end.
func (m *member) leave(ctx context.Context) {
	if m.write(ctx, "* bye\n") != nil {
		return
	}
	half, ok := m.c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_, _ = task.MoveOn(ctx, m.server.patience, func(ctx context.Context) error {
		_, err := io.Copy(io.Discard, reader{ctx, m.c})
		return err
	})
}
