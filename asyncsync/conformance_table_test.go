package asyncsync_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tableRow is one row of docs/conformance.md.
type tableRow struct {
	number int
	theirs string // asgiref's test
	ours   string // our test, or ""
	note   string // the rest of the third column
}

var (
	rowLine    = regexp.MustCompile(`^\|\s*(\d+)\s*\|([^|]*)\|([^|]*)\|\s*$`)
	rowTest    = regexp.MustCompile(`^TestRow(\d+)_(\w+)$`)
	mentioned  = regexp.MustCompile(`\bTest\w+`)
	anyRowLine = regexp.MustCompile(`^\|\s*\d`)
)

// parseTable returns the rows of the page in their order.
func parseTable(page string) (rows []tableRow, err error) {
	for n, line := range strings.Split(page, "\n") {
		m := rowLine.FindStringSubmatch(line)
		if m == nil {
			if anyRowLine.MatchString(line) {
				return nil, fmt.Errorf("line %d is not a row of three columns: %s", n+1, line)
			}
			continue
		}
		row := tableRow{theirs: strings.TrimSpace(m[2]), note: strings.TrimSpace(m[3])}
		if row.number, err = strconv.Atoi(m[1]); err != nil {
			return nil, err
		}
		if tests := mentioned.FindAllString(row.note, -1); len(tests) > 1 {
			return nil, fmt.Errorf("row %d names %d tests: %v", row.number, len(tests), tests)
		} else if len(tests) == 1 {
			row.ours = tests[0]
			row.note = strings.TrimLeft(strings.Replace(row.note, "`"+row.ours+"`", "", 1), ": ")
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// testsIn returns the names of the test functions in a directory's files.
func testsIn(dir string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	tests := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, decl := range parsed.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
				tests[fn.Name.Name] = true
			}
		}
	}
	return tests, nil
}

// checkTable returns what is wrong with the rows, given the tests there are.
func checkTable(rows []tableRow, tests map[string]bool) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	const last = 81
	if len(rows) != last {
		complain("%d rows instead of %d", len(rows), last)
	}
	listed, theirs := map[string]bool{}, map[string]int{}
	for i, row := range rows {
		if row.number != i+1 {
			complain("row %d in place %d", row.number, i+1)
		}
		if row.theirs == "" {
			complain("row %d does not name asgiref's test", row.number)
		}
		if before := theirs[row.theirs]; before != 0 {
			complain("rows %d and %d name the same test of asgiref's", before, row.number)
		}
		theirs[row.theirs] = row.number
		if row.ours == "" {
			if row.note == "" {
				complain("row %d has neither a test nor a reason", row.number)
			}
			continue
		}
		listed[row.ours] = true
		if !tests[row.ours] {
			complain("row %d: there is no %s", row.number, row.ours)
		}
		m := rowTest.FindStringSubmatch(row.ours)
		switch {
		case m == nil:
			complain("row %d: %s is not named TestRow%d_…", row.number, row.ours, row.number)
		case m[1] != strconv.Itoa(row.number):
			complain("row %d: %s is of another row", row.number, row.ours)
		case m[2] != goName(row.theirs):
			complain("row %d: %s should be named after %s: %s", row.number, row.ours, row.theirs, goName(row.theirs))
		}
	}
	for name := range tests {
		if strings.HasPrefix(name, "TestRow") && !listed[name] {
			complain("%s is not in the table", name)
		}
	}
	return wrong
}

// goName is asgiref's test name in Go's spelling.
func goName(theirs string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(strings.TrimPrefix(theirs, "test_"), "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// docs/conformance.md lists each of asgiref's 81 tests once, with a test of
// ours that exists or with a reason; and no row test is missing there.
func TestConformanceTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "conformance.md"))
	require.NoError(t, err)
	rows, err := parseTable(string(page))
	require.NoError(t, err)
	tests, err := testsIn(".")
	require.NoError(t, err)
	require.Empty(t, checkTable(rows, tests))

	// What else the page mentions must exist as well.
	for _, name := range mentioned.FindAllString(string(page), -1) {
		require.True(t, tests[name] || name == "TestRow" || name == "TestRow54_", "the page mentions %s, which does not exist", name)
	}
}

// The check itself must be able to fail: each way of spoiling the table is
// noticed.
func TestConformanceTableNoticesMistakes(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "conformance.md"))
	require.NoError(t, err)
	tests, err := testsIn(".")
	require.NoError(t, err)
	lines := strings.Split(string(page), "\n")
	var of1, of4 int
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "| 1 |"):
			of1 = i
		case strings.HasPrefix(line, "| 4 |"):
			of4 = i
		}
	}
	require.NotZero(t, of1)
	require.NotZero(t, of4)
	for name, spoilt := range map[string]map[int]string{
		"row missing":       {of4: ""},
		"row twice":         {of4: lines[of1]},
		"no reason":         {of4: "| 4 | test_sync_to_async_fail_async |  |"},
		"test not listed":   {of1: "| 1 | test_sync_to_async | Forgotten. |"},
		"test not there":    {of1: "| 1 | test_sync_to_async_too | `TestRow1_SyncToAsyncToo` |"},
		"test of another":   {of1: "| 1 | test_sync_to_async | `TestRow3_SyncToAsyncFailNonFunction` |"},
		"two tests":         {of1: "| 1 | test_sync_to_async | `TestRow1_SyncToAsync`, `TestRow3_SyncToAsyncFailNonFunction` |"},
		"not named after":   {of1: "| 1 | test_something_else | `TestRow1_SyncToAsync` |"},
		"no test of theirs": {of4: "| 4 |  | A reason. |"},
		"a column missing":  {of4: "| 4 | test_sync_to_async_fail_async |"},
	} {
		changed := append([]string(nil), lines...)
		for i, line := range spoilt {
			changed[i] = line
		}
		rows, err := parseTable(strings.Join(changed, "\n"))
		if err == nil {
			require.NotEmpty(t, checkTable(rows, tests), name)
		}
	}
}
