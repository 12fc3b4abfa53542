package sqlthread

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
)

// A session is a connection with a user, which ResetSession forgets. The last ctx of
// ResetSession is kept.
type session struct {
	*fakeConn
	user  string
	reset context.Context
	fails error
}

func (s *session) ResetSession(ctx context.Context) error {
	s.note("ResetSession")
	s.user, s.reset = "", ctx
	return s.fails
}

func (s *session) ExecContext(_ context.Context, user string, _ []driver.NamedValue) (driver.Result, error) {
	s.user = user
	return driver.ResultNoRows, nil
}

// sessions are connections of f that are sessions.
func sessions(f *fake) driver.Driver {
	return openFunc(func() (driver.Conn, error) {
		c, err := f.Open("")
		return &session{fakeConn: c.(*fakeConn)}, err
	})
}

// dsn makes a connector of a driver that has none.
type dsn struct{ d driver.Driver }

func (c dsn) Connect(context.Context) (driver.Conn, error) { return c.d.Open("") }
func (c dsn) Driver() driver.Driver                        { return c.d }

// The driver resets a session whatever ctx says. It sees the end of ctx, and what else the
// ctx has.
func TestResetSessionOfACtxThatHasEnded(t *testing.T) {
	testkit.Guard(t)
	type key struct{}
	cause := errors.New("the cause")
	deadline := time.Now().Add(time.Hour)
	above, stop := context.WithDeadline(context.WithValue(t.Context(), key{}, "value"), deadline)
	defer stop()
	ctx, cancel := context.WithCancelCause(above)
	defer cancel(nil)
	c, err := Wrap(sessions(&fake{t: t})).Open("")
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	look := func(fn func(s *session)) {
		require.NoError(t, Do(t.Context(), c, func(_ context.Context, own driver.Conn) error { fn(own.(*session)); return nil }))
	}
	for _, ended := range []error{nil, context.Canceled} {
		look(func(s *session) { s.user, s.fails = "alice", nil })
		require.NoError(t, c.(driver.SessionResetter).ResetSession(ctx))
		look(func(s *session) {
			require.Empty(t, s.user)
			require.ErrorIs(t, s.reset.Err(), ended)
			require.Equal(t, "value", s.reset.Value(key{}))
			until, ok := s.reset.Deadline()
			require.True(t, ok && until.Equal(deadline))
			s.fails = errPanic
		})
		require.Equal(t, errPanic, c.(driver.SessionResetter).ResetSession(ctx), "the driver's own error")
		if ended == nil {
			cancel(cause)
			look(func(s *session) { <-s.reset.Done() })
		}
		look(func(s *session) { require.Equal(t, cause, context.Cause(s.reset)) })
	}
}

// A lateCtx ends when it has been asked for its Done once.
type lateCtx struct {
	context.Context
	asked bool
}

var over = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

func (c *lateCtx) Done() <-chan struct{} {
	if c.asked {
		return over
	}
	c.asked = true
	return make(chan struct{})
}

func (c *lateCtx) Err() error {
	if c.asked {
		return context.Canceled
	}
	return nil
}

// Whose ctx ends while database/sql finds a connection for it does not get the session of
// the last user.
func TestNobodyGetsTheSessionOfAnother(t *testing.T) {
	testkit.Guard(t)
	for name, wrap := range map[string]func(driver.Connector) driver.Connector{
		"plain":      func(c driver.Connector) driver.Connector { return c },
		"on threads": func(c driver.Connector) driver.Connector { return WrapConnector(c) },
	} {
		t.Run(name, func(t *testing.T) {
			var own *session
			f := &fake{t: t}
			db := sql.OpenDB(wrap(dsn{openFunc(func() (driver.Conn, error) {
				c, err := f.Open("")
				own = &session{fakeConn: c.(*fakeConn)}
				return own, err
			})}))
			defer db.Close()
			_, err := db.Exec("alice")
			require.NoError(t, err)
			require.Equal(t, "alice", own.user)
			ctx := &lateCtx{Context: t.Context()}
			c, err := db.Conn(ctx)
			require.NoError(t, err)
			require.Error(t, ctx.Err())
			require.Empty(t, own.user)
			require.NoError(t, c.Close())
		})
	}
}
