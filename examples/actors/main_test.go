package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"asyncsync.dev/internal/testkit"
	"asyncsync.dev/loop"
)

// After the whole suite no goroutine is left. The default pool keeps idle threads for
// 10 s.
func TestMain(m *testing.M) {
	os.Exit(testkit.Main(m, 0, nil))
}

func TestDemo(t *testing.T) {
	for _, orders := range []int{1, 7, 100} {
		t.Run(fmt.Sprint(orders), func(t *testing.T) {
			testkit.Guard(t)
			var out bytes.Buffer
			err := run(t.Context(), []string{"-demo", "-orders", fmt.Sprint(orders)}, &out, t.Output())
			require.NoError(t, err, "%s", &out)
			known := orders - orders/25
			for _, want := range []string{
				fmt.Sprintf("%d taken, %d stored, 0 wrong", orders, known),
				fmt.Sprintf("%d refused", orders/25),
				fmt.Sprintf("%d receipts", known),
				fmt.Sprintf("%d tasks on the thread", orders),
				"all checks passed",
			} {
				require.Contains(t, out.String(), want)
			}
		})
	}
}

// lines is a writer that tells of each line.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
	got chan string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(b)
	select {
	case l.got <- string(b):
	default:
	}
	return len(b), nil
}

// TestEndsWhenAsked stops a shop that has orders under way: none of those taken is
// lost.
func TestEndsWhenAsked(t *testing.T) {
	testkit.Guard(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &lines{got: make(chan string, 1)}
	ended := make(chan error)
	go func() { ended <- run(ctx, []string{"-every", "1ms", "-orders", "20"}, out, t.Output()) }()

	require.Contains(t, <-out.got, "receipt 1:")
	stop()
	require.NoError(t, <-ended)
	require.Contains(t, out.all.String(), "all checks passed")
}

func TestEndsBeforeItHasBegun(t *testing.T) {
	testkit.Guard(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out bytes.Buffer
	require.NoError(t, run(ctx, nil, &out, t.Output()))
	require.Contains(t, out.String(), "actors: 0 orders")
}

// shopAt keeps a shop whose look-ups are answered by h.
func shopAt(t *testing.T, h http.HandlerFunc) (*summary, error) {
	server := httptest.NewServer(h)
	defer server.Close()
	return loop.Run(t.Context(), loop.NewThread(), func(ctx context.Context) (*summary, error) {
		return keepShop(ctx, options{demo: true, orders: 50, db: ":memory:"}, server.URL, nil, io.Discard)
	})
}

// A look-up that fails, in the middle of a transaction too, ends the shop with that
// error, and nobody is left waiting.
func TestLookupsFail(t *testing.T) {
	for _, path := range []string{"/price", "/city"} {
		t.Run(path[1:], func(t *testing.T) {
			testkit.Guard(t)
			_, err := shopAt(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == path {
					http.Error(w, "out of order", http.StatusInternalServerError)
					return
				}
				io.WriteString(w, "1")
			})
			require.ErrorContains(t, err, "500 Internal Server Error")
		})
	}
}

// What panics inside a transaction reaches the caller of Run, and the transaction is
// rolled back.
func TestEndingsOfTransactions(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("bug") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Guard(t)
			var rows, rollbacks int
			var value any
			over := make(chan struct{})
			go func() {
				defer close(over)
				defer func() { value = recover() }()
				_, _ = loop.Run(t.Context(), loop.NewThread(), func(ctx context.Context) (int, error) {
					s, err := openStore(":memory:")
					if err != nil {
						return 0, err
					}
					defer s.close()
					defer func() {
						found, err := s.rows(0)
						require.NoError(t, err)
						rows, rollbacks = len(found), s.rollbacks
						if s.tx.Locked() {
							rows = -1
						}
					}()
					return 0, s.add(ctx, newOrder(1), 1, func(context.Context) (string, error) {
						end()
						return "", nil
					})
				})
			}()
			<-over
			require.Equal(t, 0, rows)
			require.Equal(t, 1, rollbacks)
			if name == "panic" {
				require.Equal(t, "bug", value)
			}
		})
	}
}

// TestChecksFindFaults spoils one thing at a time.
func TestChecksFindFaults(t *testing.T) {
	sound := func() *summary {
		s := &summary{
			demo: true, taken: 2, done: 2, outside: 2, supplied: 12, left: 2, waits: 1,
			payments: 2, receipts: 2,
			threads: map[int]int{7: 3}, printer: map[int]int{8: 2},
		}
		for id := 1; id <= 2; id++ {
			o := newOrder(id)
			amount := o.count * (priceOf(o.items[0]) + priceOf(o.items[1]))
			s.rows = append(s.rows, row{id, amount, 2 * o.count, o.customer, cityOf(o.customer)})
			s.money += amount
		}
		return s
	}
	wrong := func(s *summary) (n int) {
		for _, c := range checks(s, together) {
			if !c.ok {
				n++
			}
		}
		return n
	}
	require.Zero(t, wrong(sound()), "%v", checks(sound(), together))
	for name, spoil := range map[string]func(*summary){
		"order lost":      func(s *summary) { s.rows = s.rows[1:] },
		"order twice":     func(s *summary) { s.rows = append(s.rows, s.rows[0]) },
		"order changed":   func(s *summary) { s.rows[0].city = "" },
		"not rolled back": func(s *summary) { s.refused++ },
		"mixed":           func(s *summary) { s.mixed++ },
		"piece lost":      func(s *summary) { s.left-- },
		"money lost":      func(s *summary) { s.money-- },
		"receipt lost":    func(s *summary) { s.receipts-- },
		"two threads":     func(s *summary) { s.threads[9]++ },
		"same thread":     func(s *summary) { s.printer = map[int]int{7: 2} },
		"one by one":      func(s *summary) { s.outside = 1 },
		"never waited":    func(s *summary) { s.waits = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "same thread" && !threadsKnown {
				t.Skip("threads cannot be told apart on this system")
			}
			s := sound()
			spoil(s)
			require.NotZero(t, wrong(s), "no check failed")
			require.Error(t, report(io.Discard, s, together))
		})
	}
	require.Error(t, report(io.Discard, sound(), 1))
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"-orders", "0"}, {"-every", "0s"}, {"serve"}, {"-nonsense"}} {
		require.Error(t, run(t.Context(), bad, io.Discard, io.Discard), strings.Join(bad, " "))
	}
	require.Equal(t, flag.ErrHelp, run(t.Context(), []string{"-h"}, io.Discard, io.Discard))
}
