package pack

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var target = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):(?: |$)`)

// makeTargets are the names that make takes.
func makeTargets(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, m := range target.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		names = append(names, m[1])
	}
	return names
}

// TestVSCode: what F5 and the tasks name is there.
func TestVSCode(t *testing.T) {
	var tasks struct {
		Tasks []struct{ Label, Command string }
	}
	var launch struct {
		Configurations []struct{ Name, Type, PreLaunchTask, Program, ProcessID string }
	}
	var settings map[string]any
	parse(t, "tasks.json", &tasks)
	parse(t, "launch.json", &launch)
	parse(t, "settings.json", &settings)
	targets, labels := makeTargets(t), []string{""}
	for _, task := range tasks.Tasks {
		labels = append(labels, task.Label)
		words := strings.Fields(task.Command)
		if len(words) < 2 || words[0] != "make" || !slices.Contains(targets, words[1]) {
			t.Errorf("task %s: %q is no target of make", task.Label, task.Command)
		}
	}
	for _, c := range launch.Configurations {
		if !slices.Contains(labels, c.PreLaunchTask) {
			t.Errorf("%s: no task %q", c.Name, c.PreLaunchTask)
		}
		if c.ProcessID != "" && c.ProcessID != "gateway" {
			t.Errorf("%s attaches to %q, which is not the handler", c.Name, c.ProcessID)
		}
		if folder, ok := strings.CutPrefix(c.Program, "${workspaceFolder}/"); ok {
			if _, err := os.Stat(filepath.Join(repository, folder)); err != nil {
				t.Error(err)
			}
		}
	}
	if settings["azureFunctions.deploySubpath"] != "dist" || !slices.Contains(labels, settings["azureFunctions.preDeployTask"].(string)) {
		t.Error("what is deployed is not what make package assembles")
	}
}

func parse(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, filepath.Join(".vscode", name))), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
