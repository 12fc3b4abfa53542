// Package network has what package net lacks for asynchronous code: waits that
// a ctx ends and a loop sees, listeners on every address of several hosts, and
// a dialer that tries every address of a host.
//
//   - [Read], [Write], [Accept], [ReadFrom] and [WriteTo] do the operation of a
//     connection or a listener, with a ctx.
//   - [Serve] accepts connections and handles each in a task of a group.
//   - [ListenAll] and [ListenAllPacket] listen on all addresses of several
//     hosts, or on none, with one port for all.
//   - [DialStaggered] connects to a host with several addresses, as in RFC
//     8305.
//   - [WrapConn] makes a connection of a file that somebody else has connected.
//
// For everything else use package net. The page docs/network.md has a line for
// each task.
//
// # Waiting
//
// Every function here that waits may be called from anywhere, and waits like
// [task.Await]. A goroutine blocks. A thread serves the calls of code that its
// function has started. A task of a thread loop parks, so that the loop runs
// others. In a function posted to a loop, the wait blocks the loop. A nil ctx,
// connection, listener or file panics.
//
// # Where it comes from
//
// This is the networking half of EasyNetwork's AsyncBackend:
// create_tcp_listeners, create_udp_listeners, create_tcp_connection with its
// happy_eyeballs_delay, wrap_stream_socket, and the recv, send_all, accept and
// serve of its transports.
package network
