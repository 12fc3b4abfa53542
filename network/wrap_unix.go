//go:build unix

package network

import (
	"fmt"
	"os"
	"syscall"
)

// checkStream returns an error unless f is a connected stream socket that package net
// knows. It changes nothing of f.
func checkStream(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var wrong error
	err = raw.Control(func(fd uintptr) { wrong = checkStreamFD(int(fd)) })
	if err == nil && wrong != nil {
		err = fmt.Errorf("network: WrapConn: %s is not a connected stream socket: %w", f.Name(), wrong)
	}
	return err
}

func checkStreamFD(fd int) error {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err) // it is no socket
	}
	if kind != syscall.SOCK_STREAM {
		return syscall.EPROTOTYPE
	}
	switch local, err := syscall.Getsockname(fd); local.(type) {
	case *syscall.SockaddrInet4, *syscall.SockaddrInet6, *syscall.SockaddrUnix:
	default:
		if err == nil || err == syscall.EAFNOSUPPORT {
			err = syscall.EPROTONOSUPPORT // as package net says
		}
		return os.NewSyscallError("getsockname", err)
	}
	_, err = syscall.Getpeername(fd)
	return os.NewSyscallError("getpeername", err)
}
