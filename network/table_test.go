package network_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	methodRow = regexp.MustCompile("^\\| (`.*) \\| (`.*) \\| \\[(.*)\\]\\(#.*\\) \\|$")
	span      = regexp.MustCompile("`([^`]*)`")
	lastName  = regexp.MustCompile(`\w+$`)
)

// checkMethods returns what is wrong with the table of the page: a row whose expression is
// not in the program that it names.
func checkMethods(page string) (rows int, wrong []string) {
	programs := map[string]string{}
	for _, section := range strings.Split(page, "\n## ")[1:] {
		heading, text, _ := strings.Cut(section, "\n")
		if _, program, ok := strings.Cut(text, "```go\n"); ok {
			programs[heading], _, _ = strings.Cut(program, "\n```")
		}
	}
	for line := range strings.Lines(page) {
		if !strings.Contains(line, "](#") || !strings.HasPrefix(line, "|") {
			continue
		}
		m := methodRow.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			wrong = append(wrong, "not a row: "+line)
			continue
		}
		rows++
		program := programs[m[3]]
		for _, s := range span.FindAllStringSubmatch(m[2], -1) {
			what := strings.TrimPrefix(s[1], "*")
			if !strings.HasPrefix(what, `"`) {
				what = lastName.FindString(what)
			}
			if !strings.Contains(program, what) {
				wrong = append(wrong, fmt.Sprintf("%s: %s is not in the program of %q", m[1], s[1], m[3]))
			}
		}
	}
	return rows, wrong
}

// The programs of docs/network.md, which the test of the pages runs, have in them what
// the table says.
func TestMethodsRunInThePrograms(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "network.md"))
	require.NoError(t, err)
	rows, wrong := checkMethods(string(text))
	require.Empty(t, wrong)
	require.Greater(t, rows, 60)

	// The check can fail.
	for _, spoilt := range []string{
		strings.Replace(string(text), "| `task.Yield` |", "| `task.Dance` |", 1),
		strings.Replace(string(text), "[Addresses](#addresses) |", "[Packets](#packets) |", 1),
		strings.Replace(string(text), "| `task.Yield` |", "| nothing |", 1),
	} {
		_, wrong := checkMethods(spoilt)
		require.NotEmpty(t, wrong)
	}
}
