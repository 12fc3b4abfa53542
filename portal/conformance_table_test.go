package portal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tableRow is one row of docs/conformance-anyio.md.
type tableRow struct {
	id     string
	theirs string
	note   string
}

var (
	rowLine   = regexp.MustCompile(`^\|\s*(D?\d+)\s*\|([^|]*)\|([^|]*)\|\s*$`)
	anyRow    = regexp.MustCompile(`^\|\s*D?\d`)
	mentioned = regexp.MustCompile(`\b([a-z]+)\.(Test\w+)`)
	awaited   = regexp.MustCompile(`\b[Ww]aits for ([a-z]+)\.([A-Z]\w*)`)
	rowTests  = regexp.MustCompile(`^Test(FromThread|RunAsyncFromThread|RunSyncFromThread|BlockingPortal|ToThread|Provider)_(\w+)$`)
)

func parseTable(page string) (rows []tableRow, err error) {
	for n, line := range strings.Split(page, "\n") {
		m := rowLine.FindStringSubmatch(line)
		if m == nil {
			if anyRow.MatchString(line) {
				return nil, fmt.Errorf("line %d is not a row of three columns: %s", n+1, line)
			}
			continue
		}
		rows = append(rows, tableRow{m[1], strings.TrimSpace(m[2]), strings.TrimSpace(m[3])})
	}
	return rows, nil
}

// names returns the top-level names of the packages of this module's directories, as
// package.Name, those of tests included.
func names(dirs ...string) (map[string]bool, error) {
	all := map[string]bool{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			for _, decl := range parsed.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil {
						all[dir+"."+d.Name.Name] = true
					}
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						if s, ok := spec.(*ast.TypeSpec); ok {
							all[dir+"."+s.Name.Name] = true
						}
					}
				}
			}
		}
	}
	return all, nil
}

// goName is anyio's test name in Go's spelling, without its class.
func goName(theirs string) string {
	_, theirs, _ = strings.Cut("."+theirs, "test_")
	var b strings.Builder
	for word := range strings.SplitSeq(theirs, "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

// checkTable returns what is wrong with the rows, given the names that there are.
func checkTable(rows []tableRow, have map[string]bool) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	const last, defects = 89, 13
	var want []string
	for n := range last {
		want = append(want, strconv.Itoa(n+1))
	}
	for n := range defects {
		want = append(want, "D"+strconv.Itoa(n+1))
	}
	var ids []string
	listed, theirs := map[string]bool{}, map[string]bool{}
	for i, row := range rows {
		ids = append(ids, row.id)
		switch {
		case row.theirs == "":
			complain("row %s does not say what it is about", row.id)
		case row.note == "":
			complain("row %s has neither a test nor a reason", row.id)
		}
		file := "" // the names of the two files overlap
		if i >= 56 {
			file = "to_thread "
		}
		if theirs[file+row.theirs] {
			complain("row %s names a test that another one has", row.id)
		}
		theirs[file+row.theirs] = true
		for _, m := range mentioned.FindAllStringSubmatch(row.note, -1) {
			name := m[1] + "." + m[2]
			if !have[name] {
				complain("row %s: there is no %s", row.id, name)
			}
			r := rowTests.FindStringSubmatch(m[2])
			if r == nil || m[1] != "portal" || strings.HasPrefix(row.id, "D") {
				continue
			}
			if listed[m[2]] {
				complain("row %s: %s is in two rows", row.id, m[2])
			}
			listed[m[2]] = true
			// A contextvar test of theirs comes as two, sync and async.
			if g := goName(row.theirs); g != r[2] && g != r[2]+"Sync" {
				complain("row %s: %s should be named after %s: %s", row.id, m[2], row.theirs, g)
			}
		}
		for _, m := range awaited.FindAllStringSubmatch(row.note, -1) {
			if name := m[1] + "." + m[2]; have[name] {
				complain("row %s waits for %s, which is there", row.id, name)
			}
		}
	}
	if !slices.Equal(ids, want) {
		complain("rows are %v", ids)
	}
	for name := range have {
		if test, ok := strings.CutPrefix(name, "portal."); ok && rowTests.MatchString(test) && !listed[test] {
			complain("%s is not in the table", test)
		}
	}
	return wrong
}

func tableAndNames(t *testing.T) (page string, have map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "conformance-anyio.md"))
	require.NoError(t, err)
	have, err = names("portal", "task", "asyncsync", "loop")
	require.NoError(t, err)
	return string(text), have
}

// docs/conformance-anyio.md lists each of anyio's tests once, with tests of ours that
// exist or with a reason; no test of a row is missing there; and what a row waits for is
// not there yet.
func TestAnyioTable(t *testing.T) {
	page, have := tableAndNames(t)
	rows, err := parseTable(page)
	require.NoError(t, err)
	require.Empty(t, checkTable(rows, have))
}

// The check itself must be able to fail: each way of spoiling the table is noticed.
func TestAnyioTableNoticesMistakes(t *testing.T) {
	page, have := tableAndNames(t)
	const (
		first  = "| 1 | test_thread_cancelled | `portal.TestFromThread_ThreadCancelled` |"
		second = "| 3 | test_thread_cancelled_not_in_worker_thread |"
	)
	require.Contains(t, page, first)
	require.Contains(t, page, second)
	for name, spoilt := range map[string]string{
		"row missing":      "",
		"row twice":        first + "\n" + first,
		"no reason":        "| 1 | test_thread_cancelled |  |",
		"nothing of them":  "| 1 |  | A reason. |",
		"test not listed":  "| 1 | test_thread_cancelled | Forgotten. |",
		"test not there":   "| 1 | test_thread_cancelled | `portal.TestFromThread_Nothing` |",
		"test of another":  "| 1 | test_thread_cancelled | `portal.TestToThread_Stopiteration` |",
		"not named after":  "| 1 | test_thread_started | `portal.TestFromThread_ThreadCancelled` |",
		"it is there":      first[:len(first)-1] + "Waits for task.Go. |",
		"a column missing": "| 1 | test_thread_cancelled |",
	} {
		rows, err := parseTable(strings.Replace(page, first, spoilt, 1))
		if err == nil {
			require.NotEmpty(t, checkTable(rows, have), name)
		}
	}
}
