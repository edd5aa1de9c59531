package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInfraDeployHook runs azd's hook with tools that only write down how they
// are called.
func TestInfraDeployHook(t *testing.T) {
	f := func(step, env string, failing string, code int, want ...string) {
		t.Helper()
		dir := t.TempDir()
		log := filepath.Join(dir, "log")
		for _, tool := range []string{"go", "make", "az", "azd", "func"} {
			script := "#!/bin/sh\necho \"" + tool + " $*\" >> '" + log + "'\n"
			if tool == failing {
				script += "exit 1\n"
			}
			if failing == "-"+tool {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, tool), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		date := "#!/bin/sh\necho 2026-11-01\n"
		if err := os.WriteFile(filepath.Join(dir, "date"), []byte(date), 0o700); err != nil {
			t.Fatal(err)
		}
		command := exec.Command("/bin/sh", infraDir+"/hooks/deploy.sh", step)
		command.Env = append(strings.Fields(env), "PATH="+dir, "AZURE_FUNCTION_NAME=func-x", "AZURE_RESOURCE_GROUP=rg", "AZURE_OPENAI_ENDPOINT=https://x",
			"COSTGATE_PACKAGE_ACCOUNT=st", "COSTGATE_PACKAGE_CONTAINER=package", "COSTGATE_PACKAGE_NAME=costgate.zip")
		out, _ := command.CombinedOutput()
		if got := command.ProcessState.ExitCode(); got != code {
			t.Errorf("%s %s: exit %d, want %d\n%s", step, env, got, code, out)
		}
		called, _ := os.ReadFile(log)
		got := strings.Split(strings.TrimSpace(string(called)), "\n")
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s %s: called\n%s\nwant\n%s", step, env, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	const (
		login    = "az account show --output none"
		publish  = "make publish APP=func-x"
		group    = "az deployment group create --resource-group rg --name costgate-alerts --parameters infra/main.bicepparam --output none"
		enabled  = "azd env set COSTGATE_ALERTS true"
		upload   = "az storage blob upload --auth-mode login --overwrite --only-show-errors --output none --account-name st --container-name package --name costgate.zip --file bin/costgate.zip"
		restart  = "az functionapp restart --resource-group rg --name func-x"
		triggers = "az resource invoke-action --action syncfunctiontriggers --resource-type Microsoft.Web/sites --output none --resource-group rg --name func-x"
	)
	f("check", "", "", 0, login)
	f("check", "", "az", 1, login)
	f("check", "", "-func", 1, "")
	f("check", "COSTGATE_PLAN=premium", "-func", 0, login)
	f("check", "COSTGATE_PRIVATE=true AZURE_SUBSCRIPTION_ID=s", "", 0, login+" --subscription s", "az provider register --namespace Microsoft.App --wait --subscription s")
	f("check", "COSTGATE_PRIVATE=true COSTGATE_PLAN=premium", "", 0, login)
	f("deploy", "COSTGATE_PLAN=premium COSTGATE_BUDGET=5 AZURE_SUBSCRIPTION_ID=s", "", 0, "make zip", upload+" --subscription s", restart+" --subscription s",
		triggers+" --subscription s", group+" --subscription s", enabled, "azd env set COSTGATE_BUDGET_START 2026-11-01")
	f("deploy", "COSTGATE_PLAN=flex", "", 0, publish)
	f("deploy", "COSTGATE_PLAN=flex COSTGATE_BUDGET=0", "", 0, publish)
	f("deploy", "COSTGATE_PLAN=premium", "", 0, "make zip", upload, restart, triggers)
	f("deploy", "COSTGATE_PLAN=flex COSTGATE_BUDGET=500", "", 0, publish, group, enabled, "azd env set COSTGATE_BUDGET_START 2026-11-01")
	f("deploy", "COSTGATE_PLAN=flex COSTGATE_BUDGET=500 COSTGATE_BUDGET_START=2026-09-01", "", 0, publish, group, enabled, "azd env set COSTGATE_BUDGET_START 2026-09-01")
	// Made before: azd provision keeps them.
	f("deploy", "COSTGATE_PLAN=flex COSTGATE_BUDGET=500 COSTGATE_ALERTS=true", "", 0, publish)
	// Nothing follows what failed, and azd does not take the alerts for made.
	f("deploy", "COSTGATE_PLAN=flex COSTGATE_BUDGET=500", "make", 1, publish)
	f("deploy", "COSTGATE_PLAN=flex COSTGATE_BUDGET=500", "az", 1, publish, group)
	f("", "", "", 2, "")
}
