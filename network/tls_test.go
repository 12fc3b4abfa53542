package network_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/internal/testkit/libkit"
	"asyncsync.dev/network"
)

// overTLS returns the client's end of a TLS connection, which has not shaken hands, and
// the transport of the server.
func overTLS(t *testing.T) (client *tls.Conn, there net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() {
		_ = here.Close()
		_ = there.Close()
	})
	return tls.Client(here, &tls.Config{InsecureSkipVerify: true}), there
}

// serverConfig returns what a TLS server needs.
func serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{signed}, PrivateKey: key}}}
}

// The end of ctx ends a Read and a Write that shake hands with a peer that is silent, for
// callers of every kind. It closes the connection.
func TestEndOfCtxDuringAHandshake(t *testing.T) {
	for name, op := range map[string]func(context.Context, net.Conn, []byte) (int, error){
		"Read": network.Read, "Write": network.Write,
	} {
		libkit.OnEachInBubble(t, func(t *testing.T, ctx context.Context, _ libkit.Caller) error {
			c, there := overTLS(t)
			closed := testkit.Start(func() error { _, err := io.Copy(io.Discard, there); return err })
			inner, cancel := context.WithCancelCause(ctx)
			go func() {
				synctest.Wait()
				cancel(testkit.ErrEnd)
			}()
			n, err := op(inner, c, []byte("hello"))
			require.ErrorIs(t, err, testkit.ErrEnd, name)
			require.Zero(t, n)
			require.Equal(t, testkit.Outcome{How: "return"}, closed.Wait(), name)
			_, err = op(ctx, c, []byte("hello"))
			require.Error(t, err, "%s, and the connection is closed", name)
			require.NotErrorIs(t, err, testkit.ErrEnd)
			return nil
		})
	}
}

// A Write that waits for the handshake of a Read and is cancelled does not disturb it.
func TestCancelDuringTheHandshakeOfAnother(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		c, there := overTLS(t)
		b := make([]byte, 2)
		read := testkit.Start(func() error {
			_, err := network.Read(context.Background(), c, b)
			return err
		})
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(context.Background())
		write := testkit.Start(func() error {
			_, err := network.Write(ctx, c, []byte("lost"))
			return err
		})
		synctest.Wait()
		cancel(testkit.ErrEnd)
		testkit.Ends[0].Check(t, write.Wait())
		synctest.Wait()
		require.False(t, read.Over(), "nobody has cancelled it")

		heard := make([]byte, 5)
		config := serverConfig(t)
		server := testkit.Start(func() error {
			s := tls.Server(there, config)
			if _, err := s.Write([]byte("hi")); err != nil {
				return err
			}
			_, err := io.ReadFull(s, heard)
			return err
		})
		require.Equal(t, testkit.Outcome{How: "return"}, read.Wait())
		require.Equal(t, "hi", string(b))
		n, err := network.Write(context.Background(), c, []byte("hello"))
		require.NoError(t, err)
		require.Equal(t, 5, n)
		require.Equal(t, testkit.Outcome{How: "return"}, server.Wait())
		require.Equal(t, "hello", string(heard))
	})
	require.Zero(t, network.Lines())
}

// shaking is a connection of somebody else's that shakes hands. Its operations are over at
// once.
type shaking struct {
	net.Conn
	shake func(ctx context.Context) error
	ops   atomic.Int32
}

func (s *shaking) HandshakeContext(ctx context.Context) error { return s.shake(ctx) }
func (s *shaking) Read([]byte) (int, error)                   { s.ops.Add(1); return 1, nil }
func (s *shaking) Write(b []byte) (int, error)                { s.ops.Add(1); return len(b), nil }
func (s *shaking) SetReadDeadline(time.Time) error            { return nil }
func (s *shaking) SetWriteDeadline(time.Time) error           { return nil }

// All three endings of a handshake reach the caller, of every kind, which neither reads nor
// writes then. The next one shakes hands again.
func TestEndingsOfHandshakes(t *testing.T) {
	testkit.Guard(t)
	for _, c := range libkit.Callers {
		for _, end := range testkit.Ends {
			s := &shaking{shake: func(context.Context) error { return end.Do() }}
			end.Check(t, testkit.OutcomeOf(func() error {
				return c.Run(context.Background(), func(ctx context.Context) error {
					_, err := network.Write(ctx, s, []byte("x"))
					return err
				})
			}), c.Name)
			require.Zero(t, s.ops.Load())
			require.Zero(t, network.Lines())
			s.shake = func(context.Context) error { return nil }
			_, err := network.Read(context.Background(), s, make([]byte, 1))
			require.NoError(t, err)
			require.EqualValues(t, 1, s.ops.Load())
		}
	}
}

// One operation at a time shakes hands. If its ctx has ended, its error is the cause,
// whatever the connection says.
func TestHandshakesTakeTurns(t *testing.T) {
	testkit.Guard(t)
	synctest.Test(t, func(t *testing.T) {
		var now, times atomic.Int32
		s := &shaking{shake: func(ctx context.Context) error {
			defer now.Add(-1)
			if now.Add(1) != 1 {
				t.Error("two at a time")
			}
			if times.Add(1) == 1 {
				<-ctx.Done()
				return errors.New("it says something else")
			}
			return nil
		}}
		ctx, cancel := context.WithCancelCause(context.Background())
		first := testkit.Start(func() error { _, err := network.Read(ctx, s, make([]byte, 1)); return err })
		synctest.Wait()
		var others []*testkit.Running
		for range 3 {
			others = append(others,
				testkit.Start(func() error { _, err := network.Read(context.Background(), s, make([]byte, 1)); return err }),
				testkit.Start(func() error { _, err := network.Write(context.Background(), s, []byte("x")); return err }))
		}
		synctest.Wait()
		require.Zero(t, s.ops.Load(), "they wait for the handshake")
		cancel(testkit.ErrEnd)
		testkit.Ends[0].Check(t, first.Wait())
		for _, o := range others {
			require.Equal(t, testkit.Outcome{How: "return"}, o.Wait())
		}
		require.EqualValues(t, 7, times.Load())
		require.EqualValues(t, 6, s.ops.Load())
	})
}
