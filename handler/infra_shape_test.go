package main

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInfraNames: names fit what Azure takes, and no two resources have one.
func TestInfraNames(t *testing.T) {
	patterns := map[string]*regexp.Regexp{
		"Microsoft.Storage/storageAccounts":                regexp.MustCompile(`^[a-z0-9]{3,24}$`),
		"Microsoft.EventHub/namespaces":                    regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9]$`),
		"Microsoft.CognitiveServices/accounts":             regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}[a-z0-9]$`),
		"Microsoft.Web/sites":                              regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,58}[a-z0-9]$`),
		"Microsoft.Web/serverfarms":                        regexp.MustCompile(`^[A-Za-z0-9-]{1,60}$`),
		"Microsoft.ManagedIdentity/userAssignedIdentities": regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,127}$`),
		"Microsoft.OperationalInsights/workspaces":         regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{2,61}[A-Za-z0-9]$`),
		"Microsoft.Network/privateEndpoints":               regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}[A-Za-z0-9_]$`),
		"Microsoft.Consumption/budgets":                    regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`),
	}
	eachShape(t, func(t *testing.T, s *snapshot) {
		ids := map[string]bool{}
		for _, r := range s.Resources {
			if ids[r.ID] {
				t.Errorf("%s is made twice", r.ID)
			}
			ids[r.ID] = true
			if p := patterns[r.Type]; p != nil && !p.MatchString(r.Name) {
				t.Errorf("%s: %q does not match %v", r.Type, r.Name, p)
			}
			if r.Location != "" && r.Tags["azd-env-name"] == "" {
				t.Errorf("%s %s has no tag of its environment", r.Type, r.Name)
			}
		}
		if got := s.one(t, "Microsoft.Web/sites", "func-").Tags["azd-service-name"]; got != "gateway" {
			t.Errorf("azd-service-name is %q", got)
		}
	})
}

func TestInfraFlex(t *testing.T) {
	for name, ready := range map[string]string{"flex": `[{"instanceCount":1,"name":"http"}]`, "flex-existing": `[]`} {
		s := shape(t, name)
		plan, app := s.one(t, "Microsoft.Web/serverfarms", "plan-"), s.one(t, "Microsoft.Web/sites", "func-")
		if plan.SKU["name"] != "FC1" || plan.SKU["tier"] != "FlexConsumption" || plan.Properties.at("reserved") != true {
			t.Errorf("the plan is %v", plan)
		}
		want(t, app.Name, app.Properties, map[string]string{
			"functionAppConfig.runtime":                                                        `{"name":"custom","version":"1.0"}`,
			"functionAppConfig.deployment.storage.type":                                        `"blobContainer"`,
			"functionAppConfig.deployment.storage.authentication.type":                         `"UserAssignedIdentity"`,
			"functionAppConfig.scaleAndConcurrency.instanceMemoryMB":                           "2048",
			"functionAppConfig.scaleAndConcurrency.maximumInstanceCount":                       "40",
			"functionAppConfig.scaleAndConcurrency.triggers.http.perInstanceConcurrency":       "200",
			"functionAppConfig.scaleAndConcurrency.alwaysReady":                                ready,
			"siteConfig.linuxFxVersion":                                                        "null",
			"siteConfig.functionAppScaleLimit":                                                 "null",
			"functionAppConfig.deployment.storage.authentication.storageAccountConnectionName": "null",
		})
		container := s.one(t, "Microsoft.Storage/storageAccounts/blobServices/containers", "sthost").Name
		value := app.Properties.at("functionAppConfig.deployment.storage.value").(string)
		if !strings.HasSuffix(container, "/package") || !strings.Contains(value, "'package'") {
			t.Errorf("the package's container is %s, and deployment goes to %s", container, value)
		}
	}
}

func TestInfraPremium(t *testing.T) {
	s := shape(t, "premium")
	plan, app := s.one(t, "Microsoft.Web/serverfarms", "plan-"), s.one(t, "Microsoft.Web/sites", "func-")
	if plan.SKU["name"] != "EP2" || plan.SKU["tier"] != "ElasticPremium" || plan.SKU["capacity"] != 2.0 || plan.Properties.at("reserved") != true {
		t.Errorf("the plan is %v", plan)
	}
	want(t, plan.Name, plan.Properties, map[string]string{"maximumElasticWorkerCount": "10"})
	want(t, app.Name, app.Properties, map[string]string{
		"functionAppConfig":                      "null",
		"siteConfig.linuxFxVersion":              `""`,
		"siteConfig.functionAppScaleLimit":       "10",
		"siteConfig.minimumElasticInstanceCount": "2",
		"siteConfig.healthCheckPath":             `"/` + route(t, "Health") + `"`,
	})
	got := appSettings(t, s)
	if got["FUNCTIONS_WORKER_RUNTIME"] != "custom" || got["FUNCTIONS_EXTENSION_VERSION"] != "~4" {
		t.Errorf("the runtime is %q %q", got["FUNCTIONS_WORKER_RUNTIME"], got["FUNCTIONS_EXTENSION_VERSION"])
	}
	if !strings.HasSuffix(got["WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID"], "/"+s.one(t, "Microsoft.ManagedIdentity/userAssignedIdentities", "id-costgate").Name) {
		t.Errorf("the package is fetched by %s", got["WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID"])
	}
	if s.Outputs["COSTGATE_PACKAGE_NAME"] == "" || !strings.Contains(got["WEBSITE_RUN_FROM_PACKAGE"], s.Outputs["COSTGATE_PACKAGE_NAME"]) {
		t.Errorf("the package is %s, and %q is uploaded", got["WEBSITE_RUN_FROM_PACKAGE"], s.Outputs["COSTGATE_PACKAGE_NAME"])
	}
}

// TestInfraCapture: records go to the lake, into folders as docs/LAKE.md has them,
// under an identity that the gateway does not have.
func TestInfraCapture(t *testing.T) {
	eachShape(t, func(t *testing.T, s *snapshot) {
		namespace, hub := s.one(t, "Microsoft.EventHub/namespaces", "evhns-"), s.one(t, "Microsoft.EventHub/namespaces/eventhubs", "evhns-")
		lake, identity := s.one(t, "Microsoft.Storage/storageAccounts", "stlake"), s.one(t, "Microsoft.ManagedIdentity/userAssignedIdentities", "id-capture")
		want(t, lake.Name, lake.Properties, map[string]string{"isHnsEnabled": "true"})
		const format = "{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"
		want(t, hub.Name, hub.Properties, map[string]string{
			"captureDescription.enabled":                                         "true",
			"captureDescription.encoding":                                        `"Avro"`,
			"captureDescription.skipEmptyArchives":                               "true",
			"captureDescription.destination.name":                                `"EventHubArchive.AzureBlockBlob"`,
			"captureDescription.destination.identity.type":                       `"UserAssigned"`,
			"captureDescription.destination.identity.userAssignedIdentity":       `"` + identity.ID + `"`,
			"captureDescription.destination.properties.storageAccountResourceId": `"` + lake.ID + `"`,
			"captureDescription.destination.properties.blobContainer":            `"usage"`,
			"captureDescription.destination.properties.archiveNameFormat":        `"` + format + `"`,
			"retentionDescription.retentionTimeInHours":                          "168",
		})
		if !strings.Contains(string(readFile(t, "../docs/LAKE.md")), "{namespace}/{hub}/{partition}/{Y}/{M}/{D}/{h}/{m}/{s}.avro") {
			t.Error("docs/LAKE.md has other folders")
		}
		if _, ok := namespace.Identity.at("userAssignedIdentities").(map[string]any)[identity.ID]; !ok {
			t.Errorf("the namespace has the identity %v", namespace.Identity)
		}
		app := s.one(t, "Microsoft.Web/sites", "func-")
		if _, ok := app.Identity.at("userAssignedIdentities").(map[string]any)[identity.ID]; ok {
			t.Error("the gateway has Capture's identity")
		}
	})
}

// route is where a function is called.
func route(t *testing.T, function string) string {
	t.Helper()
	var f struct{ Bindings []struct{ Route string } }
	if err := json.Unmarshal(readFile(t, "../functions/"+function+"/function.json"), &f); err != nil {
		t.Fatal(err)
	}
	return f.Bindings[0].Route
}

// TestInfraAlerts: the action group calls BudgetAlert with that function's key,
// and the budget on the account's cost calls the action group.
func TestInfraAlerts(t *testing.T) {
	eachShape(t, func(t *testing.T, s *snapshot) {
		budgets := map[string]string{"flex-existing": "models", "flex-private": "private"}
		groups := s.all("Microsoft.Insights/actionGroups")
		if enabled := budgets[s.name] != "" || s.name == "premium-private"; !enabled {
			if len(groups)+len(s.all("Microsoft.Consumption/budgets")) > 0 {
				t.Error("alerts, although the function is not there yet")
			}
			return
		}
		group := s.one(t, "Microsoft.Insights/actionGroups", "ag-")
		if name := group.Properties.at("groupShortName").(string); len(name) > 12 {
			t.Errorf("the short name %q is too long", name)
		}
		app := s.one(t, "Microsoft.Web/sites", "func-")
		receiver := object(group.Properties.at("azureFunctionReceivers").([]any)[0].(map[string]any))
		function := receiver.at("functionName").(string)
		if _, err := os.Stat("../functions/" + function); err != nil || function != "BudgetAlert" {
			t.Errorf("it calls %s: %v", function, err)
		}
		want(t, group.Name, receiver, map[string]string{"functionAppResourceId": `"` + app.ID + `"`, "useCommonAlertSchema": "true"})
		url := receiver.at("httpTriggerUrl").(string)
		parts := []string{"/" + route(t, function) + "?code=", "'" + app.ID + "', ", ".defaultHostName), listKeys('" + app.ID + "/functions/" + function + "', ", ".default)]"}
		for _, part := range parts {
			if !strings.Contains(url, part) {
				t.Errorf("the URL %s has no %s", url, part)
			}
		}
		if budgets[s.name] == "" {
			if n := len(s.all("Microsoft.Consumption/budgets")); n > 0 {
				t.Errorf("%d budgets for an account that is not known", n)
			}
			return
		}
		budget := s.one(t, "Microsoft.Consumption/budgets", budgets[s.name])
		account := budget.Properties.at("filter.dimensions.values").([]any)[0].(string)
		scope, _, _ := strings.Cut(account, "/providers/")
		if !strings.Contains(account, "/Microsoft.CognitiveServices/accounts/") || !strings.HasPrefix(budget.ID, scope+"/providers/Microsoft.Consumption/") {
			t.Errorf("the budget %s is on the cost of %s", budget.ID, account)
		}
		want(t, budget.Name, budget.Properties, map[string]string{
			"category": `"Cost"`, "timeGrain": `"Monthly"`, "timePeriod": `{"startDate":"2026-11-01"}`,
		})
		notifications := budget.Properties.at("notifications").(map[string]any)
		if got := slices.Sorted(maps.Keys(notifications)); !slices.Equal(got, []string{"actual100", "actual50", "actual80", "forecast100"}) {
			t.Errorf("it tells at %v", got)
		}
		for name, n := range notifications {
			want(t, name, object(n.(map[string]any)), map[string]string{"contactGroups": `["` + group.ID + `"]`, "enabled": "true", "operator": `"GreaterThan"`})
		}
	})
}

// TestInfraModels: deployments are made as they are told to the gateway, and stay
// on the version that has the price.
func TestInfraModels(t *testing.T) {
	s := shape(t, "premium")
	var told map[string]map[string]string
	if err := json.Unmarshal([]byte(appSettings(t, s)["DEPLOYMENTS"]), &told); err != nil {
		t.Fatal(err)
	}
	account, made := s.one(t, "Microsoft.CognitiveServices/accounts", "oai-"), s.all("Microsoft.CognitiveServices/accounts/deployments")
	if account.Location != "swedencentral" || len(made) != 2 || len(told) != 2 {
		t.Fatalf("%d deployments in %s, told %v", len(made), account.Location, told)
	}
	for _, r := range made {
		d := told[r.Name[strings.Index(r.Name, "/")+1:]]
		want(t, r.Name, r.Properties, map[string]string{
			"model.format": `"OpenAI"`, "model.name": `"` + d["model"] + `"`, "model.version": `"` + d["version"] + `"`,
			"versionUpgradeOption": `"NoAutoUpgrade"`,
		})
		if r.SKU["name"] != d["sku"] || d["region"] != account.Location {
			t.Errorf("%s is made as %v, told as %v", r.Name, r.SKU, d)
		}
	}
	for _, name := range []string{"flex-existing", "premium-private"} {
		if n := len(shape(t, name).all("Microsoft.CognitiveServices/accounts")); n > 0 {
			t.Errorf("%s makes %d accounts", name, n)
		}
	}
}

func TestInfraOutputs(t *testing.T) {
	eachShape(t, func(t *testing.T, s *snapshot) {
		for name, ending := range map[string]string{
			"AZURE_OPENAI_ENDPOINT": ".defaultHostName)]", "OPENAI_BASE_URL": "", "COSTGATE_ADMIN_URL": "", "COSTGATE_HEALTH_URL": "", "COSTGATE_LAKE_URL": "'usage')]",
		} {
			if !strings.HasSuffix(s.Outputs[name], ending) || s.Outputs[name] == "" {
				t.Errorf("%s is %q", name, s.Outputs[name])
			}
		}
		if got, wanted := s.Outputs["AZURE_FUNCTION_NAME"], s.one(t, "Microsoft.Web/sites", "func-").Name; got != wanted {
			t.Errorf("the app's name is given as %q, and is %q", got, wanted)
		}
		for name, path := range map[string]string{"OPENAI_BASE_URL": "{0}/openai/v1", "COSTGATE_ADMIN_URL": "{0}/" + route(t, "Create"), "COSTGATE_HEALTH_URL": "{0}/" + route(t, "Health")} {
			if !strings.Contains(s.Outputs[name], path) {
				t.Errorf("%s is %s", name, s.Outputs[name])
			}
		}
	})
}
