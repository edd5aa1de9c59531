package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/costgate/costgate/handler/internal/pricing"
)

// Settings of the Functions host and of the Azure SDK, which are not the gateway's.
var (
	hostSettings = []string{
		"APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "APPLICATIONINSIGHTS_CONNECTION_STRING",
		"AZURE_CLIENT_ID", "AZURE_TOKEN_CREDENTIALS",
		"AzureWebJobsStorage__blobServiceUri", "AzureWebJobsStorage__clientId", "AzureWebJobsStorage__credential",
		"AzureWebJobsStorage__queueServiceUri", "AzureWebJobsStorage__tableServiceUri",
	}
	// Flex Consumption refuses these.
	premiumSettings = []string{
		"FUNCTIONS_EXTENSION_VERSION", "FUNCTIONS_WORKER_RUNTIME",
		"WEBSITE_RUN_FROM_PACKAGE", "WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID",
	}
)

func appSettings(t *testing.T, s *snapshot) map[string]string {
	t.Helper()
	list, ok := s.one(t, "Microsoft.Web/sites", "func-").Properties.at("siteConfig.appSettings").([]any)
	if !ok {
		t.Fatalf("%s: the settings are not known before the deployment", s.name)
	}
	found := map[string]string{}
	for _, element := range list {
		setting := object(element.(map[string]any))
		name := setting.at("name").(string)
		if _, ok := found[name]; ok {
			t.Errorf("%s is given twice", name)
		}
		found[name] = setting.at("value").(string)
	}
	return found
}

// keyVaultReference begins a setting that names a secret, and holds none.
const keyVaultReference = "@Microsoft.KeyVault(SecretUri=https://"

// TestInfraSettings: a setting of the gateway is given by main.bicep if, and only
// if, it holds no secret.
func TestInfraSettings(t *testing.T) {
	given := map[string]bool{}
	eachShape(t, func(t *testing.T, s *snapshot) {
		expected := slices.Clone(hostSettings)
		if strings.HasPrefix(s.name, "premium") {
			expected = append(expected, premiumSettings...)
		}
		names := appSettings(t, s)
		for _, name := range expected {
			if names[name] == "" {
				t.Errorf("%s is not given", name)
			}
			delete(names, name)
		}
		for name, value := range names {
			given[name] = given[name] || !strings.HasPrefix(value, keyVaultReference)
			if !slices.ContainsFunc(settings, func(known setting) bool { return known.name == name }) {
				t.Errorf("%s is given, and the gateway has no such setting", name)
			}
		}
	})
	for _, known := range settings {
		if given[known.name] == known.secret {
			t.Errorf("%s: given %v, secret %v", known.name, given[known.name], known.secret)
		}
	}
}

// TestInfraSettingsAreAccepted starts from the settings that are given: the
// gateway takes them, and every deployment in them has a price.
func TestInfraSettingsAreAccepted(t *testing.T) {
	eachShape(t, func(t *testing.T, s *snapshot) {
		env := appSettings(t, s)
		stand := map[string]string{
			"AZURE_OPENAI_ENDPOINT":                  "https://oai-costgate.openai.azure.com/",
			"UsageEventHub__fullyQualifiedNamespace": "evhns-costgate.servicebus.windows.net",
			"DEPLOYMENTS":                            `{"chat":{"model":"gpt-4.1","version":"2025-04-14","sku":"DataZoneStandard","region":"eastus2"}}`,
		}
		for name, value := range env {
			switch {
			case strings.HasPrefix(value, keyVaultReference) && strings.HasSuffix(name, "SECRET"):
				env[name] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
				continue
			case !strings.HasPrefix(value, "[") && !strings.HasPrefix(value, keyVaultReference):
				continue
			}
			env[name] = "https://known.example.com"
			if known, ok := stand[name]; ok {
				env[name] = known
			}
		}
		env["FUNCTIONS_CUSTOMHANDLER_PORT"] = "8080"
		env["FUNCTIONS_APP_ROOT_PATH"] = ".." // where host.json is
		c, err := ParseConfig("", func(name string) string { return env[name] })
		if err != nil {
			t.Fatal(err)
		}
		book := pricing.Builtin()
		if c.Prices != nil {
			book = book.With(c.Prices)
		}
		if len(c.Deployments) == 0 {
			t.Error("no deployments")
		}
		for name, d := range c.Deployments {
			query := pricing.Query{Model: d.Model, Version: d.Version, SKU: d.SKU, Region: d.Region, At: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
			if _, ok := book.Lookup(query); !ok {
				t.Errorf("%s has no price: %+v", name, query)
			}
		}
		if c.KeepAlive >= 230*time.Second {
			t.Errorf("Azure's load balancer cuts a stream after 230 s of silence; it is kept alive after %v", c.KeepAlive)
		}
	})
}

// TestInfraSettingsGivenByParameter: a value that main.bicep takes comes out as
// the gateway's setting.
func TestInfraSettingsGivenByParameter(t *testing.T) {
	got := appSettings(t, shape(t, "premium"))
	for name, wanted := range map[string]string{
		"LOG_CONTENT":      "on",
		"LOG_LEVEL":        "debug",
		"QuotaTableName":   "Costgate",
		"RETENTION_DAYS":   "0",
		"STREAM_KEEPALIVE": "30s",
		"STREAM_MAX":       "20m",
		"UNMETERED_PATHS":  "v1/files,v1/files/*",
		"DATA_DIR":         "/tmp/costgate",
	} {
		if got[name] != wanted {
			t.Errorf("%s is %q, want %q", name, got[name], wanted)
		}
	}
	if got := appSettings(t, shape(t, "premium-private")); got["AZURE_OPENAI_ENDPOINT"] != "https://models.example.com/base" {
		t.Errorf("the endpoint is %q", got["AZURE_OPENAI_ENDPOINT"])
	}
}

// compiled is the part of azuredeploy.json that people fill in and read.
type compiled struct {
	Schema     string `json:"$schema"`
	Parameters map[string]struct {
		Ref, Type     string
		Default       any `json:"defaultValue"`
		MinValue      *int
		MaxValue      *int
		AllowedValues []any
		Metadata      struct{ Description string }
	}
	Outputs map[string]struct {
		Type, Value string
		Metadata    struct{ Description string }
	}
}

func readTemplate(t *testing.T) *compiled {
	t.Helper()
	c := &compiled{}
	if err := json.Unmarshal(readFile(t, template), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestInfraParameters: each says what it is, numbers have limits, and none has to
// be given.
func TestInfraParameters(t *testing.T) {
	c := readTemplate(t)
	if !strings.HasSuffix(c.Schema, "/2019-04-01/deploymentTemplate.json#") {
		t.Errorf("%s is not the schema of a deployment to a resource group", c.Schema)
	}
	for name, p := range c.Parameters {
		if p.Metadata.Description == "" {
			t.Errorf("parameter %s has no description", name)
		}
		if p.Default == nil {
			t.Errorf("parameter %s has no default", name)
		}
		if p.Type == "int" && p.MinValue == nil && p.AllowedValues == nil {
			t.Errorf("parameter %s has no least value", name)
		}
		if strings.HasPrefix(p.Type, "secure") {
			t.Errorf("parameter %s is a secret: identities are for that", name)
		}
	}
	for _, name := range []string{"hostingPlan", "instanceMemoryMB", "premiumSku", "storageReplication", "logLevel"} {
		if len(c.Parameters[name].AllowedValues) < 2 {
			t.Errorf("parameter %s takes anything", name)
		}
	}
	for name, o := range c.Outputs {
		if o.Metadata.Description == "" {
			t.Errorf("output %s has no description", name)
		}
	}
}

// TestInfraHooks: the variables that the hooks and main.bicepparam read are
// outputs, or azd's own, or told of in main.bicepparam.
func TestInfraHooks(t *testing.T) {
	known := map[string]bool{"AZURE_ENV_NAME": true, "AZURE_PRINCIPAL_ID": true, "AZURE_PRINCIPAL_TYPE": true, "AZURE_SUBSCRIPTION_ID": true}
	for name := range readTemplate(t).Outputs {
		known[name] = true
	}
	params := string(readFile(t, infraDir+"/main.bicepparam"))
	for _, part := range strings.Split(params, "readEnvironmentVariable('")[1:] {
		name, _, _ := strings.Cut(part, "'")
		known[name] = true
	}
	sh := string(readFile(t, infraDir+"/hooks/deploy.sh"))
	ps := string(readFile(t, infraDir+"/hooks/deploy.ps1"))
	used := map[string]bool{}
	for _, script := range []string{sh, ps} {
		for _, word := range strings.FieldsFunc(script, func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') }) {
			if strings.HasPrefix(word, "AZURE_") || strings.HasPrefix(word, "COSTGATE_") {
				used[word] = true
				if !strings.Contains(sh, word) || !strings.Contains(ps, word) {
					t.Errorf("%s is in one of the hooks only", word)
				}
			}
		}
	}
	if len(used) < 8 {
		t.Fatalf("the hooks read %v", slices.Sorted(maps.Keys(used)))
	}
	for name := range used {
		if !known[name] {
			t.Errorf("nothing sets %s", name)
		}
	}
	yaml := string(readFile(t, "../azure.yaml"))
	for _, script := range []string{"infra/hooks/deploy.sh", "infra/hooks/deploy.ps1"} {
		if !strings.Contains(yaml, script) {
			t.Errorf("azure.yaml does not run %s", script)
		}
	}
}
