package task_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tableRow is one row of docs/conformance-easynetwork.md.
type tableRow struct {
	id     string
	theirs string
	ours   string // our test, or ""
	note   string // the rest of the last column
}

var (
	rowLine   = regexp.MustCompile(`^\| ([EA]\d+) \|([^|]*)\|([^|]*)\|([^|]*)\|$`)
	anyRow    = regexp.MustCompile(`^\|\s*[A-Z]\d`)
	rowTest   = regexp.MustCompile(`^Test([EA]\d+)_(\w+)$`)
	mentioned = regexp.MustCompile(`\bTest\w+`)
	word      = regexp.MustCompile(`[A-Za-z0-9]+`)
)

func parseTable(page string) (rows []tableRow, err error) {
	for n, line := range strings.Split(page, "\n") {
		m := rowLine.FindStringSubmatch(line)
		if m == nil {
			if anyRow.MatchString(line) {
				return nil, fmt.Errorf("line %d is not a row of four columns: %s", n+1, line)
			}
			continue
		}
		row := tableRow{id: m[1], theirs: strings.TrimSpace(m[2]), note: strings.TrimSpace(m[4])}
		if strings.TrimSpace(m[3]) == "" {
			return nil, fmt.Errorf("row %s does not say what it is about", row.id)
		}
		switch tests := mentioned.FindAllString(row.note, -1); len(tests) {
		case 0:
		case 1:
			row.ours = tests[0]
			row.note = strings.TrimLeft(strings.Replace(row.note, "`"+row.ours+"`", "", 1), ": ")
		default:
			return nil, fmt.Errorf("row %s names %d tests", row.id, len(tests))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// goName is their name in Go's spelling.
func goName(theirs string) string {
	var b strings.Builder
	for _, w := range word.FindAllString(strings.TrimPrefix(theirs, "test_"), -1) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}

// checkTable returns what is wrong with the rows, given the tests there are.
func checkTable(rows []tableRow, tests map[string]bool) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	last, listed, theirs := map[string]int{}, map[string]bool{}, map[string]string{}
	for _, row := range rows {
		letter := row.id[:1]
		last[letter]++
		if want := fmt.Sprint(letter, last[letter]); row.id != want {
			complain("row %s in the place of %s", row.id, want)
		}
		if row.theirs == "" {
			complain("row %s does not name theirs", row.id)
		}
		if before := theirs[letter+row.theirs]; before != "" {
			complain("rows %s and %s name the same", before, row.id)
		}
		theirs[letter+row.theirs] = row.id
		if row.ours == "" {
			if row.note == "" {
				complain("row %s has neither a test nor a reason", row.id)
			}
			continue
		}
		listed[row.ours] = true
		if !tests[row.ours] {
			complain("row %s: there is no %s", row.id, row.ours)
		}
		switch m := rowTest.FindStringSubmatch(row.ours); {
		case m == nil:
			complain("row %s: %s is not named Test%s_...", row.id, row.ours, row.id)
		case m[1] != row.id:
			complain("row %s: %s is of another row", row.id, row.ours)
		case m[2] != goName(row.theirs):
			complain("row %s: %s should be named after %q: %s", row.id, row.ours, row.theirs, goName(row.theirs))
		}
	}
	if last["E"] != 21 || last["A"] != 34 {
		complain("there are %v rows", last)
	}
	for name := range tests {
		if rowTest.MatchString(name) && !listed[name] {
			complain("%s is not in the table", name)
		}
	}
	return wrong
}

func testsHere() (map[string]bool, error) {
	files, err := filepath.Glob("*_test.go")
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

// docs/conformance-easynetwork.md has each row once, with a test of ours that exists
// or with a reason; and no test of a row is missing there.
func TestConformanceTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "conformance-easynetwork.md"))
	require.NoError(t, err)
	rows, err := parseTable(string(page))
	require.NoError(t, err)
	tests, err := testsHere()
	require.NoError(t, err)
	require.Empty(t, checkTable(rows, tests))
	for _, name := range mentioned.FindAllString(string(page), -1) {
		require.True(t, tests[name] || name == "TestE13_" || name == "Test", "the page mentions %s, which does not exist", name)
	}
}

// The check itself must be able to fail.
func TestConformanceTableNoticesMistakes(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "conformance-easynetwork.md"))
	require.NoError(t, err)
	tests, err := testsHere()
	require.NoError(t, err)
	for name, change := range map[string]func(lines []string, e2, a6 int){
		"row missing":       func(l []string, _, a6 int) { l[a6] = "" },
		"row twice":         func(l []string, e2, a6 int) { l[a6] = l[e2] },
		"no reason":         func(l []string, _, a6 int) { l[a6] = "| A6 | test_deprecated_cancellable_param | x |  |" },
		"test not listed":   func(l []string, e2, _ int) { l[e2] = "| E2 | cancel_shielded_coro_yield | x | Forgotten. |" },
		"test not there":    func(l []string, e2, _ int) { l[e2] = "| E2 | nothing | x | `TestE2_Nothing` |" },
		"test of another":   func(l []string, e2, _ int) { l[e2] = "| E2 | sleep_forever | x | `TestE5_SleepForever` |" },
		"not named after":   func(l []string, e2, _ int) { l[e2] = "| E2 | else | x | `TestE2_CancelShieldedCoroYield` |" },
		"about nothing":     func(l []string, _, a6 int) { l[a6] = "| A6 | test_deprecated_cancellable_param |  | A reason. |" },
		"no name of theirs": func(l []string, _, a6 int) { l[a6] = "| A6 |  | x | A reason. |" },
		"a column missing":  func(l []string, _, a6 int) { l[a6] = "| A6 | test_deprecated_cancellable_param | x |" },
		"two tests":         func(l []string, e2, _ int) { l[e2] += " `TestE5_SleepForever` |" },
	} {
		lines := strings.Split(string(page), "\n")
		var e2, a6 int
		for i, line := range lines {
			if strings.HasPrefix(line, "| E2 |") {
				e2 = i
			} else if strings.HasPrefix(line, "| A6 |") {
				a6 = i
			}
		}
		require.NotZero(t, e2*a6)
		change(lines, e2, a6)
		if rows, err := parseTable(strings.Join(lines, "\n")); err == nil {
			require.NotEmpty(t, checkTable(rows, tests), name)
		}
	}
}
