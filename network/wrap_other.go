//go:build !unix

package network

import "os"

// checkStream leaves it to package net to find out what f is: here that changes nothing
// of a socket.
func checkStream(*os.File) error { return nil }
