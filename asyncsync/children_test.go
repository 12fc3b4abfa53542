package asyncsync_test

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"testing"
)

// children runs each of bodies in a process of its own, which is what ends such a
// process needs, and returns what it has written to standard error and how it has
// ended. The test does nothing else but look at that.
func children(t *testing.T, bodies map[string]func(t *testing.T)) func(name string) (stderr string, err error) {
	t.Helper()
	const variable = "ASYNCSYNC_TEST_BODY"
	if name := os.Getenv(variable); name != "" {
		bodies[name](t)
		if t.Failed() {
			os.Exit(1)
		}
		os.Exit(0)
	}
	return func(name string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
		cmd.Env = append(slices.Clone(os.Environ()), variable+"="+name)
		var stderr bytes.Buffer
		cmd.Stderr, cmd.Stdout = &stderr, &stderr
		err := cmd.Run()
		return stderr.String(), err
	}
}
