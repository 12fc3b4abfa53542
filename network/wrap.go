package network

import (
	"fmt"
	"net"
	"os"
)

// WrapConn makes a connection of a file that is a connected stream socket, of
// TCP or of the Unix kind: one that was inherited, or made by C. The connection
// takes the place of the file, which is closed.
//
// If f is anything else, or not connected, WrapConn returns an error and leaves
// f as it is. It does not wait.
//
// It is EasyNetwork's wrap_stream_socket.
func WrapConn(f *os.File) (net.Conn, error) {
	if f == nil {
		panic("network: WrapConn with a nil file")
	}
	// FileConn makes the socket non-blocking, for all who share it, before it looks at
	// what it has. So what it would refuse does not get there.
	if err := checkStream(f); err != nil {
		return nil, err
	}
	c, err := net.FileConn(f) // has a duplicate
	if err != nil {
		return nil, err
	}
	stream := false
	switch c := c.(type) {
	case *net.TCPConn:
		stream = true
	case *net.UnixConn:
		stream = c.LocalAddr().Network() == "unix"
	}
	switch {
	case !stream:
		err = fmt.Errorf("network: WrapConn: %s is not a stream socket, but a %s socket", f.Name(), c.LocalAddr().Network())
	case c.RemoteAddr() == nil:
		err = fmt.Errorf("network: WrapConn: %s is not connected", f.Name())
	default:
		err = f.Close()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
