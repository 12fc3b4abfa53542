package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// childVariable names the test that a process is to run the body of.
const childVariable = "TESTKIT_CHILD"

// Child runs body in a process of its own, which may crash, and returns what the
// process has written and how it has ended. The process is this test binary: it runs
// this one test again, up to Child, with env added to its environment. So a test, or a
// subtest, calls Child once, and does nothing before that the process must not do.
func Child(t *testing.T, body func(t *testing.T), env ...string) (output string, err error) {
	t.Helper()
	hello := "testkit: a process for " + t.Name() + "\n"
	if os.Getenv(childVariable) == t.Name() {
		fmt.Fprint(os.Stderr, hello)
		body(t)
		if t.Failed() {
			os.Exit(1)
		}
		os.Exit(0)
	}
	path := strings.Split(t.Name(), "/")
	for i, name := range path {
		path[i] = "^" + regexp.QuoteMeta(name) + "$"
	}
	// The limit is below that of Guard, so that a process that hangs says where.
	cmd := exec.CommandContext(t.Context(), os.Args[0],
		"-test.run="+strings.Join(path, "/"), "-test.count=1", "-test.v", "-test.timeout=100s")
	cmd.Env = append(append(os.Environ(), env...), childVariable+"="+t.Name())
	text, err := cmd.CombinedOutput()
	_, output, ran := strings.Cut(string(text), hello)
	if !ran {
		t.Fatalf("the process has not run the test: %v\n%s", err, text)
	}
	return output, err
}
