package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A crowd is clients who speak until the server stops. They are ordinary goroutines
// with ordinary connections, and know nothing of what the server is made of.
type crowd struct {
	clients []*client
	enough  chan struct{} // closed when so many messages were accepted, and each client was heard
	failed  chan struct{} // closed when a client has ended before that

	left    atomic.Int64 // messages to go
	running sync.WaitGroup
	fail    sync.Once
}

// A client remembers what it was told. Others read that when it has ended.
type client struct {
	name     string
	overTCP  bool
	accepted []message // its own
	heard    []message // everybody's
	bye      bool
	err      error // what should not have happened
}

// newCrowd starts the clients.
func newCrowd(tcp, web string, messages int) *crowd {
	c := &crowd{enough: make(chan struct{}), failed: make(chan struct{})}
	// The first message of each counts beside the others, so that all are heard.
	c.left.Store(int64(messages))
	var first sync.WaitGroup
	first.Add(tcpClients + httpClients)
	heard := make(chan struct{})
	go func() { first.Wait(); close(heard) }()
	full := make(chan struct{})
	counted := func(client *client) {
		if len(client.accepted) == 1 {
			first.Done()
		}
		if c.left.Add(-1) == 0 {
			close(full)
		}
	}
	go func() {
		select {
		case <-c.failed:
			return
		case <-full:
		}
		select {
		case <-c.failed:
		case <-heard:
			close(c.enough)
		}
	}()
	start := func(client *client, run func(counted func())) {
		c.clients = append(c.clients, client)
		c.running.Go(func() {
			run(func() { counted(client) })
			select {
			case <-c.enough:
			default:
				c.fail.Do(func() { close(c.failed) })
			}
			// Those who were never heard are not waited for any more.
			if len(client.accepted) == 0 {
				first.Done()
			}
		})
	}
	for i := range tcpClients {
		client := &client{name: fmt.Sprintf("t%d", i), overTCP: true}
		start(client, func(counted func()) { client.talk(tcp, counted) })
	}
	for i := range httpClients {
		client := &client{name: fmt.Sprintf("h%d", i)}
		start(client, func(counted func()) { client.post("http://"+web, counted) })
	}
	return c
}

// wait waits until the server has ended all conversations.
func (c *crowd) wait() { c.running.Wait() }

// talk is a client over TCP. It has some messages under way at any time, also when the
// server stops, and so tries to lose one.
func (c *client) talk(address string, counted func()) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		c.err = err
		return
	}
	defer conn.Close()
	const underWay = 4
	free := make(chan struct{}, underWay)
	ended := make(chan struct{})
	var speaking sync.WaitGroup
	defer speaking.Wait()
	defer close(ended)

	in := bufio.NewScanner(conn)
	for in.Scan() {
		line := in.Text()
		switch {
		case c.bye:
			c.err = errors.Join(c.err, fmt.Errorf("after the good-bye: %q", line))
		case line == "* what is your name?":
			fmt.Fprintln(conn, c.name)
		case line == "* welcome, "+c.name:
			speaking.Go(func() {
				for n := 1; ; n++ {
					select {
					case free <- struct{}{}:
					case <-ended:
						return
					}
					if _, err := fmt.Fprintf(conn, "message %d\n", n); err != nil {
						return // the server reads no more
					}
				}
			})
		case line == "* bye":
			c.bye = true
		case line == "* not said: "+errClosing.Error():
		default:
			m, err := parseMessage(line)
			if err != nil {
				c.err = errors.Join(c.err, err)
				continue
			}
			c.heard = append(c.heard, m)
			if m.From == c.name {
				c.accepted = append(c.accepted, m)
				counted()
				<-free
			}
		}
	}
	// A reset connection would be an error here.
	c.err = errors.Join(c.err, in.Err())
}

// parseMessage undoes message.String.
func parseMessage(line string) (message, error) {
	number, rest, _ := strings.Cut(line, " ")
	from, text, ok := strings.Cut(rest, ": ")
	n, err := strconv.Atoi(number)
	if err != nil || !ok {
		return message{}, fmt.Errorf("no message: %q", line)
	}
	return message{n, from, text}, nil
}

// post is a client over HTTP: it speaks on one connection, and listens on another.
func (c *client) post(site string, counted func()) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport, Timeout: time.Minute}

	var listening sync.WaitGroup
	var heard []message
	var failure error
	listening.Go(func() { heard, failure = hear(site) })
	for n := 1; ; n++ {
		resp, err := web.PostForm(site+"/say", url.Values{"from": {c.name}, "text": {fmt.Sprint("message ", n)}})
		if err != nil {
			break // it does not listen any more, and nothing was accepted
		}
		var m message
		err = json.NewDecoder(resp.Body).Decode(&m)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			break
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			c.err = fmt.Errorf("%s: %w", resp.Status, err)
			break
		}
		c.accepted = append(c.accepted, m)
		counted()
	}
	listening.Wait()
	c.heard = heard
	c.err = errors.Join(c.err, failure)
}

// hear asks for messages until the server stops.
func hear(site string) (heard []message, failure error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport, Timeout: time.Minute}
	for after := 0; ; {
		resp, err := web.Get(fmt.Sprint(site, "/messages?after=", after))
		if err != nil {
			return heard, nil // it does not listen any more
		}
		var all []message
		err = json.NewDecoder(resp.Body).Decode(&all)
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			return heard, nil
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			return heard, fmt.Errorf("%s: %w", resp.Status, err)
		}
		if len(all) > 0 {
			heard = append(heard, all...)
			after = all[len(all)-1].Number
		}
	}
}
