package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// builtinRoles are the roles of infra/modules/roles.bicep by the name that they
// have in Azure.
var builtinRoles = map[string]string{
	"5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
	"2b629674-e913-4c01-ae53-ef4638d8f975": "Azure Event Hubs Data Sender",
	"3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
	"ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
	"b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
	"974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
	"0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
}

var (
	uuidPattern  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	tokenPattern = regexp.MustCompile(`-?[a-z0-9]{13}$`)
)

func TestInfraRolesAreKnown(t *testing.T) {
	found := map[string]bool{}
	for _, id := range uuidPattern.FindAllString(string(readFile(t, infraDir+"/modules/roles.bicep")), -1) {
		found[id] = true
		if builtinRoles[id] == "" {
			t.Errorf("%s is no role that is known here", id)
		}
	}
	if len(found) != len(builtinRoles) {
		t.Errorf("%d roles in roles.bicep, %d known", len(found), len(builtinRoles))
	}
	// Nowhere else is a role named by its id.
	for _, file := range infraFiles(t, ".bicep") {
		if file != "modules/roles.bicep" && uuidPattern.Match(readFile(t, infraDir+"/"+file)) {
			t.Errorf("%s has an id in it; roles are named in roles.bicep", file)
		}
	}
	for _, id := range uuidPattern.FindAllString(string(readFile(t, template)), -1) {
		if !found[id] {
			t.Errorf("azuredeploy.json has an unknown id, %s", id)
		}
	}
}

// quoted are the parts of an expression between single quotes; a text that is no
// expression is its own only part.
func quoted(text string) []string {
	if !strings.HasPrefix(text, "[") {
		return []string{text}
	}
	parts := strings.Split(text, "'")
	var found []string
	for i := 1; i < len(parts); i += 2 {
		found = append(found, parts[i])
	}
	return found
}

// short is the last of a path's parts that tells resources apart, without the
// token that makes names unique.
func short(path string) string {
	parts := strings.Split(path, "/")
	if i := slices.Index(parts, "providers"); i >= 0 {
		parts = parts[i+1:]
	}
	names := []string{}
	for i := 2; i < len(parts); i += 2 {
		names = append(names, tokenPattern.ReplaceAllString(parts[i], ""))
	}
	return strings.Join(names, "/")
}

// TestInfraRoles: who may do what, and nothing more.
func TestInfraRoles(t *testing.T) {
	common := []string{
		"id-costgate: Azure Event Hubs Data Sender on evhns-costgate/usage",
		"id-costgate: Monitoring Metrics Publisher on appi-costgate",
		"id-costgate: Storage Blob Data Owner on sthost",
		"id-costgate: Storage Queue Data Contributor on sthost",
		"id-costgate: Storage Table Data Contributor on sthost",
		"id-costgate: Storage Table Data Contributor on stquota",
		"id-capture: Storage Blob Data Contributor on stlake/default/usage",
	}
	more := map[string][]string{
		"flex":            {"id-costgate: Cognitive Services OpenAI User on oai-costgate"},
		"flex-private":    {"id-costgate: Cognitive Services OpenAI User on oai-costgate"},
		"flex-existing":   {"id-costgate: Cognitive Services OpenAI User on models"},
		"premium-private": {},
		"premium": {
			"id-costgate: Cognitive Services OpenAI User on oai-costgate",
			"00000000-0000-0000-0000-0000000000b0: Storage Blob Data Contributor on sthost/default/package",
		},
	}
	eachShape(t, func(t *testing.T, s *snapshot) {
		expected, ok := more[s.name]
		if !ok {
			t.Fatal("say here who may do what in this shape")
		}
		expected = append(expected, common...)
		var got []string
		for _, r := range s.all("Microsoft.Authorization/roleAssignments") {
			role := r.Properties.at("roleDefinitionId").(string)
			name := builtinRoles[role[strings.LastIndex(role, "/")+1:]]
			who := quoted(r.Properties.at("principalId").(string))[0]
			if strings.Contains(who, "/") {
				who = short(who)
				if r.Properties.at("principalType") != "ServicePrincipal" {
					t.Errorf("%s is a %v", who, r.Properties.at("principalType"))
				}
			}
			where, _, _ := strings.Cut(quoted(r.ID)[0], "/providers/Microsoft.Authorization")
			got = append(got, fmt.Sprintf("%s: %s on %s", who, name, short(where)))
		}
		slices.Sort(got)
		slices.Sort(expected)
		if !slices.Equal(got, expected) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(expected, "\n"))
		}
	})
	existing := shape(t, "flex-existing")
	const account = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/rg-models/providers/Microsoft.CognitiveServices/accounts/models"
	if !slices.ContainsFunc(existing.Resources, func(r resource) bool {
		return r.Type == "Microsoft.Authorization/roleAssignments" && slices.Contains(quoted(r.ID), account)
	}) {
		t.Error("the role on the existing account is not assigned on that account")
	}
}

// TestInfraNoKeys: nothing is entered by a key, and TLS is 1.2 or newer.
func TestInfraNoKeys(t *testing.T) {
	byType := map[string]map[string]string{
		"Microsoft.Storage/storageAccounts": {
			"allowSharedKeyAccess": "false", "allowBlobPublicAccess": "false", "allowCrossTenantReplication": "false",
			"minimumTlsVersion": `"TLS1_2"`, "supportsHttpsTrafficOnly": "true", "defaultToOAuthAuthentication": "true",
		},
		"Microsoft.Storage/storageAccounts/blobServices/containers": {"publicAccess": `"None"`},
		"Microsoft.EventHub/namespaces":                             {"disableLocalAuth": "true", "minimumTlsVersion": `"1.2"`},
		"Microsoft.CognitiveServices/accounts":                      {"disableLocalAuth": "true"},
		"Microsoft.Insights/components":                             {"DisableLocalAuth": "true"},
		"Microsoft.OperationalInsights/workspaces":                  {"features.disableLocalAuth": "true"},
		"Microsoft.Web/sites/basicPublishingCredentialsPolicies":    {"allow": "false"},
		"Microsoft.Web/sites": {
			"httpsOnly": "true", "siteConfig.minTlsVersion": `"1.2"`, "siteConfig.scmMinTlsVersion": `"1.2"`,
			"siteConfig.ftpsState": `"Disabled"`, "siteConfig.remoteDebuggingEnabled": "false",
		},
	}
	eachShape(t, func(t *testing.T, s *snapshot) {
		for _, r := range s.Resources {
			want(t, r.Name, r.Properties, byType[r.Type])
		}
		if n := len(s.all("Microsoft.Storage/storageAccounts")); n != 3 {
			t.Errorf("%d storage accounts", n)
		}
		if n := len(s.all("Microsoft.Web/sites/basicPublishingCredentialsPolicies")); n != 2 {
			t.Errorf("%d policies for passwords", n)
		}
	})
}

// TestInfraNoSecrets: the only secret in play is the key of BudgetAlert. It goes
// from the function to the action group, and no output shows any.
func TestInfraNoSecrets(t *testing.T) {
	text := string(readFile(t, template))
	asked := regexp.MustCompile(`(?i)\blist[a-z]*\(`).FindAllStringIndex(text, -1)
	const key = "listKeys(resourceId('Microsoft.Web/sites/functions', parameters('appName'), 'BudgetAlert')"
	if len(asked) != 1 || !strings.HasPrefix(text[asked[0][0]:], key) {
		t.Errorf("keys are asked for %d times, not once as %s", len(asked), key)
	}
	for _, word := range []string{"SharedAccessKey", "AccountKey=", "sig=", "ApiKey=", "securestring", "secureObject", "reservedConnectionString"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(word)) {
			t.Errorf("azuredeploy.json has %q in it", word)
		}
	}
	eachShape(t, func(t *testing.T, s *snapshot) {
		for name, value := range s.Outputs {
			if strings.Contains(strings.ToLower(value), "list") || strings.Contains(strings.ToLower(value), "connectionstring") {
				t.Errorf("the output %s is %s", name, value)
			}
		}
		for name, value := range appSettings(t, s) {
			if strings.Contains(value, "listKeys") {
				t.Errorf("the setting %s is %s", name, value)
			}
		}
	})
}

// TestInfraNetworks: with private networking data services are closed but to
// private endpoints; without, open to those who have a role.
func TestInfraNetworks(t *testing.T) {
	eachShape(t, func(t *testing.T, s *snapshot) {
		private, premium := strings.HasSuffix(s.name, "-private"), strings.HasPrefix(s.name, "premium")
		access, action := `"Enabled"`, `"Allow"`
		if private {
			access, action = `"Disabled"`, `"Deny"`
		}
		for _, r := range s.all("Microsoft.Storage/storageAccounts") {
			expected := action
			if premium && strings.HasPrefix(r.Name, "sthost") {
				expected = `"Allow"` // the package comes from outside
			}
			want(t, r.Name, r.Properties, map[string]string{"networkAcls.defaultAction": expected, "networkAcls.bypass": `"AzureServices"`})
		}
		for _, kind := range []string{"Microsoft.EventHub/namespaces", "Microsoft.CognitiveServices/accounts"} {
			for _, r := range s.all(kind) {
				want(t, r.Name, r.Properties, map[string]string{"publicNetworkAccess": access})
			}
		}
		app := s.one(t, "Microsoft.Web/sites", "func-")
		want(t, app.Name, app.Properties, map[string]string{"publicNetworkAccess": `"Enabled"`})
		if !private {
			want(t, app.Name, app.Properties, map[string]string{"virtualNetworkSubnetId": "null"})
			for _, r := range s.Resources {
				if strings.HasPrefix(r.Type, "Microsoft.Network/") {
					t.Errorf("%s %s is not wanted here", r.Type, r.Name)
				}
			}
			return
		}
		endpoints := map[string]string{"pe-host-blob": "blob", "pe-host-queue": "queue", "pe-host-table": "table", "pe-quota": "table", "pe-hub": "namespace"}
		zones := 4
		if !premium {
			endpoints["pe-openai"], zones = "account", 5
		}
		got := map[string]string{}
		for _, r := range s.all("Microsoft.Network/privateEndpoints") {
			link := object(r.Properties.at("privateLinkServiceConnections").([]any)[0].(map[string]any))
			got[short("/providers/x/y/"+r.Name)] = link.at("properties.groupIds").([]any)[0].(string)
		}
		if !maps.Equal(got, endpoints) {
			t.Errorf("endpoints %v, want %v", got, endpoints)
		}
		for kind, n := range map[string]int{
			"Microsoft.Network/privateDnsZones": zones, "Microsoft.Network/privateDnsZones/virtualNetworkLinks": zones,
			"Microsoft.Network/privateEndpoints/privateDnsZoneGroups": len(endpoints),
		} {
			if got := len(s.all(kind)); got != n {
				t.Errorf("%d of %s, want %d", got, kind, n)
			}
		}
		network := s.one(t, "Microsoft.Network/virtualNetworks", "vnet-")
		subnet := object(network.Properties.at("subnets").([]any)[0].(map[string]any))
		delegation := object(subnet.at("properties.delegations").([]any)[0].(map[string]any))
		expected := "Microsoft.App/environments"
		if premium {
			expected = "Microsoft.Web/serverFarms"
		}
		if got := delegation.at("properties.serviceName"); got != expected {
			t.Errorf("the subnet is delegated to %v, want %s", got, expected)
		}
		if got, _ := app.Properties.at("virtualNetworkSubnetId").(string); got != network.ID+"/subnets/app" {
			t.Errorf("the app is in %q", got)
		}
	})
}
