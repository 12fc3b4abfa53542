package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// lookups answer questions about the world, slowly: they are async code.
type lookups interface {
	// title returns what the page at a link is called.
	title(ctx context.Context, link string) (string, error)
	// about describes a tag.
	about(ctx context.Context, tag string) (string, error)
}

// A lookupError says that a look-up had no answer.
type lookupError struct {
	subject string // what was looked up
	err     error
}

func (e *lookupError) Error() string { return fmt.Sprintf("look up %s: %v", e.subject, e.err) }
func (e *lookupError) Unwrap() error { return e.err }

// errNoAnswer is the cause of a lookupError when the service knows no answer.
var errNoAnswer = errors.New("there is no such page")

// A lookupClient asks a lookupService over HTTP.
type lookupClient struct {
	base string
	http *http.Client
}

func newLookupClient(base string) *lookupClient {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost = 16
	transport.MaxIdleConnsPerHost = 16
	return &lookupClient{base: base, http: &http.Client{Transport: transport}}
}

// close ends the connections that wait for a next question.
func (c *lookupClient) close() { c.http.CloseIdleConnections() }

func (c *lookupClient) title(ctx context.Context, link string) (string, error) {
	return c.ask(ctx, link, "/api/title", url.Values{"url": {link}})
}

func (c *lookupClient) about(ctx context.Context, tag string) (string, error) {
	return c.ask(ctx, tag, "/api/tag", url.Values{"name": {tag}})
}

// An answer is what a lookupService sends.
type answer struct {
	Answer string `json:"answer"`
}

func (c *lookupClient) ask(ctx context.Context, subject, path string, params url.Values) (string, error) {
	text, err := c.get(ctx, c.base+path+"?"+params.Encode())
	if err != nil {
		return "", &lookupError{subject, err}
	}
	return text, nil
}

func (c *lookupClient) get(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return "", errNoAnswer
	default:
		return "", fmt.Errorf("the look-up service answered %s", resp.Status)
	}
	var a answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&a); err != nil {
		return "", err
	}
	return a.Answer, nil
}
