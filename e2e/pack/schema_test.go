package pack

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemas are the published JSON schemas that the tests' reference data has. The
// one of function.json is that of the host's repository: SchemaStore's rejects
// every binding, because two of its alternatives overlap.
const (
	hostSchema     = "schemastore-host.json"
	settingsSchema = "schemastore-local.settings.json"
	functionSchema = "azure-functions-host-function.json"
)

// compile reads a schema; tests without the reference data end here.
func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	data := os.Getenv("COSTGATE_TESTDATA")
	if data == "" {
		t.Skip("COSTGATE_TESTDATA is not set: no schemas to check against")
	}
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(data, "schemas", name))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(t *testing.T, schema *jsonschema.Schema, text []byte) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}

func TestHostFileMatchesItsSchema(t *testing.T) {
	checkFile(t, hostSchema, "host.json", `"routePrefix": ""`, `"routePrefix": 1`, `"enableProxyingHttpRequest"`, `"enableProxyingHttpRequests"`,
		`"functionTimeout": "00:30:00"`, `"functionTimeout": "30m"`)
}

func TestLocalSettingsMatchTheirSchema(t *testing.T) {
	checkFile(t, settingsSchema, "local.settings.json", `"IsEncrypted": false`, `"IsEncrypted": "no"`, `"FUNCTIONS_WORKER_RUNTIME": "custom"`, `"FUNCTIONS_WORKER_RUNTIME": 1`)
}

// TestFunctionsMatchTheirSchema also looks at what was packaged.
func TestFunctionsMatchTheirSchema(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(repository, "functions", "*", functionFile))
	if err != nil || len(names) == 0 {
		t.Fatal("no functions", err)
	}
	for _, name := range names {
		checkFile(t, functionSchema, filepath.Join("functions", filepath.Base(filepath.Dir(name)), functionFile), `"direction": "in"`, `"direction": "to"`)
	}
	checkFile(t, functionSchema, "functions/Proxy/function.json", `"authLevel": "anonymous"`, `"authLevel": "none"`)
}

// checkFile holds a file against a schema, and shows with each pair of an old
// and a new text that the schema would have noticed.
func checkFile(t *testing.T, schemaName, name string, mistakes ...string) {
	t.Helper()
	schema := compile(t, schemaName)
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, schema, text); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for i := 0; i < len(mistakes); i += 2 {
		wrong := strings.Replace(string(text), mistakes[i], mistakes[i+1], 1)
		if wrong == string(text) {
			t.Errorf("%s does not say %s", name, mistakes[i])
		} else if validate(t, schema, []byte(wrong)) == nil {
			t.Errorf("%s: %s passes", name, mistakes[i+1])
		}
	}
}
