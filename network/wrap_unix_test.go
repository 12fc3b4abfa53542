//go:build unix

package network_test

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/network"
)

// blocking reports whether reads of f block the OS thread.
func blocking(t *testing.T, f *os.File) (yes bool) {
	t.Helper()
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0)
		require.Zero(t, errno)
		yes = flags&syscall.O_NONBLOCK == 0
	}))
	return yes
}

// file returns a file of a descriptor that blocks, as those do that C has made, or that
// were inherited.
func file(t *testing.T, fd int) *os.File {
	t.Helper()
	require.NoError(t, syscall.SetNonblock(fd, false))
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = f.Close() })
	require.True(t, blocking(t, f))
	return f
}

// What WrapConn refuses stays as it was, blocking, for all who share it.
func TestWrapConnLeavesFilesAlone(t *testing.T) {
	testkit.Guard(t)
	socket := func(family, kind int) int {
		fd, err := syscall.Socket(family, kind, 0)
		require.NoError(t, err)
		return fd
	}
	pair := func(kind int) [2]int {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
		require.NoError(t, err)
		return fds
	}
	var pipe [2]int
	require.NoError(t, syscall.Pipe(pipe[:]))
	packets := pair(syscall.SOCK_DGRAM)
	listener := socket(syscall.AF_INET, syscall.SOCK_STREAM)
	require.NoError(t, syscall.Bind(listener, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(listener, 1))
	for name, fd := range map[string]int{
		"pipe":                pipe[0],
		"the other end":       pipe[1],
		"packets":             packets[0],
		"the other packets":   packets[1],
		"UDP":                 socket(syscall.AF_INET, syscall.SOCK_DGRAM),
		"listener":            listener,
		"TCP, not connected":  socket(syscall.AF_INET6, syscall.SOCK_STREAM),
		"Unix, not connected": socket(syscall.AF_UNIX, syscall.SOCK_STREAM),
	} {
		f := file(t, fd)
		c, err := network.WrapConn(f)
		require.Error(t, err, name)
		require.Nil(t, c)
		require.True(t, blocking(t, f), name)
		require.NoError(t, f.Close(), name)
		_, err = network.WrapConn(f)
		require.Error(t, err, "it is closed")
	}
}

// A pair of Unix sockets, without names, is connected.
func TestWrapConnOfAPair(t *testing.T) {
	testkit.Guard(t)
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	var ends [2]net.Conn
	for i, fd := range fds {
		f := file(t, fd)
		ends[i], err = network.WrapConn(f)
		require.NoError(t, err)
		require.ErrorIs(t, f.Close(), os.ErrClosed)
	}
	_, err = network.Write(context.Background(), ends[0], []byte("x"))
	require.NoError(t, err)
	b := make([]byte, 2)
	n, err := network.Read(context.Background(), ends[1], b)
	require.NoError(t, err)
	require.Equal(t, "x", string(b[:n]))
	require.NoError(t, ends[0].Close())
	require.NoError(t, ends[1].Close())
}
