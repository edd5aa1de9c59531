package pack

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	span     = regexp.MustCompile("`([^`\n]+)`")
	fence    = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")
	capitals = regexp.MustCompile(`\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b(?:Quota|UsageEvent)[A-Z][A-Za-z]*(?:__[A-Za-z]+)?\b`)
	makeCall = regexp.MustCompile(`\bmake ([a-z][a-z-]*)`)
	gateway  = regexp.MustCompile(`\bgateway ([a-z]+)((?: [a-z]+\b)?)`)
	kqlText  = regexp.MustCompile(`\b(?:msg|message) (?:==|startswith|has|in) \(?((?:"(?:[^"\\]|\\.)*"(?:, )?)+)`)
	kqlField = regexp.MustCompile(`\bl\.([a-z_]+)`)
	quoted   = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	snake    = regexp.MustCompile(`^[a-z]+(?:_[a-z]+)+$`)
)

func operations(t *testing.T) string { return read(t, "docs/OPERATIONS.md") }

// program is the source of the gateway, without its tests.
func program(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join(repository, "handler"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testkit") {
			return err
		}
		data, err := os.ReadFile(name)
		all.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// templates is what infra has of Bicep: parameters from the environment, and
// outputs, have names like settings.
func templates(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range []string{"*.bicep", "*.bicepparam", "modules/*.bicep"} {
		names, err := filepath.Glob(filepath.Join(repository, "infra", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(data)
		}
	}
	return all.String()
}

// TestOperationsNamesSettings: every setting named there is one of the
// gateway's, or a name of the Bicep's.
func TestOperationsNamesSettings(t *testing.T) {
	text, config, infra := operations(t), read(t, "handler/config.go"), templates(t)
	found := 0
	for _, name := range capitals.FindAllString(text, -1) {
		known := strings.Contains(config, `{"`+name+`", `) || strings.Contains(infra, "'"+name+"'") ||
			strings.Contains(infra, "output "+name+" ") || strings.Contains(infra, name+": ")
		if found++; !known {
			t.Errorf("%s is no setting, and nothing in infra has it", name)
		}
	}
	if found < 20 {
		t.Errorf("only %d names were found: does the pattern still fit the page?", found)
	}
}

func TestOperationsNamesCommands(t *testing.T) {
	text, targets, usage := operations(t), makeTargets(t), read(t, "handler/commands.go")
	var calls, commands []string
	for _, code := range span.FindAllStringSubmatch(text, -1) {
		for _, m := range makeCall.FindAllStringSubmatch(code[1], -1) {
			if calls = append(calls, m[1]); !slices.Contains(targets, m[1]) {
				t.Errorf("make %s: no such target", m[1])
			}
		}
		for _, m := range gateway.FindAllStringSubmatch(code[1], -1) {
			commands = append(commands, m[1]+m[2])
		}
	}
	for _, command := range commands {
		if !strings.Contains(usage, "\n  "+command+" ") && !strings.Contains(usage, "\n  "+command+"\n") {
			t.Errorf("gateway %s: no such command", command)
		}
	}
	if len(calls) < 5 || len(commands) < 8 {
		t.Errorf("%d calls of make and %d of the gateway were found", len(calls), len(commands))
	}
}

// TestOperationsQuotesTheProgram: log lines in the table of failures, error
// codes anywhere, and what the queries look for, are in the source.
func TestOperationsQuotesTheProgram(t *testing.T) {
	text, source := operations(t), program(t)
	_, table, ok := strings.Cut(text, "<!-- failures:begin -->\n")
	table, _, ok2 := strings.Cut(table, "<!-- failures:end -->")
	if !ok || !ok2 {
		t.Fatal("the page has no table of failures")
	}
	lines := 0
	for _, row := range strings.Split(strings.TrimSpace(table), "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "|"), "|")
		if len(cells) != 5 {
			t.Errorf("%d cells: %s", len(cells), row)
			continue
		}
		for _, code := range span.FindAllStringSubmatch(cells[2], -1) {
			if lines++; !strings.Contains(source, code[1]) {
				t.Errorf("nothing logs %q", code[1])
			}
		}
	}
	for _, code := range span.FindAllStringSubmatch(text, -1) {
		if snake.MatchString(code[1]) && !strings.Contains(source, `"`+code[1]+`"`) && !strings.Contains(source, strings.TrimPrefix(code[1], "costgate_lake_")+`"`) {
			t.Errorf("the program has no %q", code[1])
		}
	}
	queries := 0
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		for _, m := range kqlText.FindAllStringSubmatch(block[1], -1) {
			for _, literal := range quoted.FindAllStringSubmatch(m[1], -1) {
				if strings.HasPrefix(literal[1], `{\"time\"`) { // how a line begins; the logger's own test has that
					continue
				}
				if queries++; !strings.Contains(source, literal[1]) {
					t.Errorf("a query looks for %q, which nothing logs", literal[1])
				}
			}
		}
		for _, m := range kqlField.FindAllStringSubmatch(block[1], -1) {
			name := strings.TrimPrefix(m[1], "costgate_lake_")
			if !slices.Contains([]string{"level", "msg"}, name) && !strings.Contains(source, `"`+name+`"`) {
				t.Errorf("a query reads %q, which no line has", m[1])
			}
		}
	}
	if lines < 20 || queries < 10 {
		t.Errorf("%d log lines and %d texts of queries were found", lines, queries)
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]+))?\)`)

// TestOperationsLinks: every file and section that it links to is there.
func TestOperationsLinks(t *testing.T) {
	for _, m := range link.FindAllStringSubmatch(operations(t), -1) {
		file, section := m[1], m[2]
		if strings.HasPrefix(file, "https://") {
			continue
		}
		if file == "" {
			file = "OPERATIONS.md"
		}
		page := read(t, filepath.Join("docs", file))
		if section != "" && !slices.Contains(anchors(page), section) {
			t.Errorf("%s has no section #%s", file, section)
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.+)$`)

// anchors are the names of a page's sections, as GitHub makes them.
func anchors(page string) []string {
	var names []string
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		names = append(names, name)
	}
	return names
}
