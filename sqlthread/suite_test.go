package sqlthread_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pastTheWrapper are the tests of github.com/mattn/go-sqlite3 that cannot pass, and
// why. All of them open a connection with the driver itself, without package
// database/sql: there is nothing to wrap.
var pastTheWrapper = map[string]string{
	"TestAuthorizerHandleRelease":                       "counts the callbacks that the driver keeps for a connection of its own type",
	"TestBindErrorPaths":                                "binds values that database/sql would have converted",
	"TestDeclTypes":                                     "calls a method that only the driver's own rows have",
	"TestRowsContextCancelAndClose":                     "calls the rows of the driver from several goroutines",
	"TestRowsContextCancelBetweenRows":                  "steps through the rows of the driver, one at a time",
	"TestRowsContextCancelDuringStep":                   "steps through the rows of the driver, one at a time",
	"TestRowsContextPanicClearsActiveRows":              "looks at what the driver's own connection remembers of its rows",
	"TestRowsInterruptIgnoresInactiveRows":              "steps through the rows of the driver, one at a time",
	"TestRowsLateInterruptDoesNotAffectReusedStatement": "calls unexported methods of the driver's own connection",
	"TestRowsStepValues":                                "steps through the rows of the driver, into buffers of its own",
	"TestStmtCacheLRUEviction":                          "looks into the driver's cache of statements",
	"TestStmtCacheReuseReturnsSameHandle":               "looks into the driver's cache of statements",
}

// The tests of a driver pass with its connections on threads. They are those of
// github.com/mattn/go-sqlite3: a copy of the module registers its drivers with
// sqlthread.Register, has what is given to sql.Conn.Raw run by sqlthread.Do, and
// refuses connections that are opened in another way.
//
// The copy is linked with the system's SQLite, if pkg-config knows it: to compile the
// one that comes with the driver takes minutes.
func TestTheDriversSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	dir := copyDriver(t)
	here, err := os.Getwd()
	require.NoError(t, err)
	run(t, dir, "go", "mod", "edit", "-go=1.25",
		"-require=asyncsync.dev@v0.0.0", "-replace=asyncsync.dev="+filepath.Dir(here),
		"-require=asyncsync.dev/sqlthread@v0.0.0", "-replace=asyncsync.dev/sqlthread="+here)

	args := []string{"test", "-json", "-mod=mod", "-trimpath", "-timeout=9m"}
	if exec.Command("pkg-config", "--exists", "sqlite3").Run() == nil {
		args = append(args, "-tags=libsqlite3")
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}

	began, ended, said := make(map[string]bool), make(map[string]string), make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var e struct{ Action, Test, Output string }
		if err := d.Decode(&e); err == io.EOF {
			break
		} else {
			require.NoError(t, err, "%s\n%s", out, &stderr)
		}
		name, _, _ := strings.Cut(e.Test, "/")
		said[name] += e.Output
		if e.Test == "" || name != e.Test {
			continue
		}
		switch e.Action {
		case "run":
			began[name] = true
		case "pass", "fail", "skip":
			ended[name] = e.Action
		}
	}
	require.Greater(t, len(began), 80, "tests that have begun:\n%s\n%s", said[""], &stderr)
	for name := range began {
		require.NotEmpty(t, ended[name], "%s has not ended:\n%s\n%s", name, said[name], said[""])
	}
	for _, name := range slices.Sorted(maps.Keys(ended)) {
		why, allowed := pastTheWrapper[name]
		switch {
		case ended[name] == "fail" && !allowed:
			t.Errorf("%s fails:\n%s", name, said[name])
		case ended[name] != "fail" && allowed:
			t.Errorf("%s does not fail, though %s: take it off the list", name, why)
		}
	}
	for name := range pastTheWrapper {
		if !began[name] {
			t.Errorf("there is no %s: take it off the list", name)
		}
	}
}

var (
	registers = regexp.MustCompile(`\bsql\.Register\(`)
	raws      = regexp.MustCompile(`\b(\w+)\.Raw\(func`)
	opens     = regexp.MustCompile(`(?m)^func \(d \*SQLiteDriver\) Open\(.*\{$`)
)

// copyDriver copies the files of the driver's package, and changes how connections
// are opened.
func copyDriver(t *testing.T) (dir string) {
	t.Helper()
	from := strings.TrimSpace(run(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/mattn/go-sqlite3"))
	dir = t.TempDir()
	files, err := os.ReadDir(from)
	require.NoError(t, err)
	opened := 0
	for _, f := range files {
		if f.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		require.NoError(t, err)
		if strings.HasSuffix(f.Name(), ".go") && f.Name() != "doc.go" {
			was := text
			text = registers.ReplaceAll(text, []byte("registerOnThread("))
			text = raws.ReplaceAll(text, []byte("rawOnThread($1, func"))
			if !bytes.Equal(was, text) {
				text = append(text, "\nvar _ sql.NullBool // the import is used\n"...)
			}
			opened += len(opens.FindAll(text, -1))
			text = opens.ReplaceAll(text, []byte("$0\n\tif err := onThread(); err != nil {\n\t\treturn nil, err\n\t}"))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, f.Name()), text, 0o666))
	}
	require.Equal(t, 1, opened, "functions that open connections")
	for from, to := range map[string]string{"testdata/suite/thread.go": "thread.go", "go.sum": "go.sum"} {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, to), text, 0o666))
	}
	return dir
}

// run runs a command without a workspace, and returns what it writes.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	return string(out)
}
