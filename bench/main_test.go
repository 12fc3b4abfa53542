package bench_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"asyncsync.dev/asyncsync"
	"asyncsync.dev/bench"
	"asyncsync.dev/deadlock"
	"asyncsync.dev/internal/spin"
)

// burnerVariable makes a process of this test binary a burner.
const burnerVariable = "BENCH_BURNER"

func TestMain(m *testing.M) {
	if os.Getenv(burnerVariable) != "" {
		burn()
	}
	os.Exit(m.Run())
}

// burn keeps a processor busy until its input ends, which it does with the
// process that started it.
func burn() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("burning")
	for n := new(atomic.Uint64); ; {
		n.Add(1)
	}
}

func ExampleChannel() {
	c := bench.NewChannel()
	defer c.Close()
	c.Call(func() { fmt.Println("on the thread") })
	// Output:
	// on the thread
}

// burnGoroutines has a goroutine for every processor busy until the benchmark
// ends. worked returns how much they have done so far.
func burnGoroutines(b *testing.B) (worked func() float64) {
	type counter struct {
		atomic.Uint64
		_ [120]byte // a neighbour's line
	}
	counters := make([]counter, runtime.GOMAXPROCS(0))
	var stop atomic.Bool
	var burning, gone sync.WaitGroup
	burning.Add(len(counters))
	for i := range counters {
		gone.Go(func() {
			burning.Done()
			for !stop.Load() {
				counters[i].Add(1)
			}
		})
	}
	burning.Wait()
	b.Cleanup(func() {
		stop.Store(true)
		gone.Wait()
	})
	return func() (sum float64) {
		for i := range counters {
			sum += float64(counters[i].Load())
		}
		return sum
	}
}

// burnProcesses does the same with processes, whose work nobody sees.
func burnProcesses(b *testing.B) (worked func() float64) {
	self, err := os.Executable()
	must(b, err)
	for range runtime.NumCPU() {
		p := exec.Command(self)
		p.Env = append(os.Environ(), burnerVariable+"=1", "GOMAXPROCS=2") // one waits for the end
		in, err := p.StdinPipe()
		must(b, err)
		out, err := p.StdoutPipe()
		must(b, err)
		must(b, p.Start())
		b.Cleanup(func() {
			in.Close()
			p.Wait()
		})
		_, err = bufio.NewReader(out).ReadString('\n')
		must(b, err)
	}
	return nil
}

// withDetector has something look for deadlocks while the benchmark runs.
func withDetector(b *testing.B, on bool) {
	if !on {
		return
	}
	b.Cleanup(detect())
}

// detect watches for deadlocks until stop is called.
func detect() (stop func()) {
	return deadlock.Watch(deadlock.Config{
		Slow:      time.Minute,
		Interval:  10 * time.Millisecond,
		OnVerdict: func(v deadlock.Verdict) { panic("a benchmark is taken for a deadlock: " + v.Title()) },
	})
}

// Whether threads and their callers look out for each other before they sleep.
const (
	spinNever   = -1
	spinLearned = 0
	spinAlways  = 1
)

// setSpin sets it for one benchmark. Where there is one processor none can always
// spin: each side would keep the other from running.
func setSpin(b *testing.B, mode int) {
	if mode == spinAlways && min(runtime.GOMAXPROCS(0), runtime.NumCPU()) < 2 {
		b.Skip("there is one processor")
	}
	spin.Set(mode)
	b.Cleanup(func() { spin.Set(spinLearned) })
}

// inContext returns the ctx of a context that is closed when the benchmark has
// ended.
func inContext(b *testing.B, opts ...asyncsync.ContextOption) (context.Context, *asyncsync.ThreadSensitiveContext) {
	ctx, tsc := asyncsync.NewThreadSensitiveContext(context.Background(), opts...)
	b.Cleanup(func() { must(b, tsc.Close()) })
	return ctx, tsc
}

func nothing(context.Context, int) (int, error) { return 0, nil }

// must ends the benchmark on an error that no benchmark expects.
func must(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

// perLevel reports what a level of a nesting takes, beside the whole.
func perLevel(b *testing.B, depth int, descend func()) {
	descend() // the first makes the stacks grow
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for b.Loop() {
		descend()
	}
	took := b.Elapsed()
	runtime.ReadMemStats(&after)
	levels := float64(b.N) * float64(depth)
	b.ReportMetric(float64(took.Nanoseconds())/levels, "ns/level")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/levels, "B/level")
}

// untilQueued waits for a number of calls in the queue of a context.
func untilQueued(tsc *asyncsync.ThreadSensitiveContext, n int) {
	for tsc.Stats().Queued < n {
		runtime.Gosched() // nobody tells
	}
}
