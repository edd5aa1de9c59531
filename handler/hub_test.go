package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Where records go: each of the two forms of the setting, and what is wrong with
// others, named with what to do.
func TestHubSettings(t *testing.T) {
	const (
		key       = "c2VjcmV0"
		bare      = "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=" + key
		entity    = bare + ";EntityPath=usage"
		emulator  = "Endpoint=sb://localhost:5672;SharedAccessKeyName=n;SharedAccessKey=" + key + ";UseDevelopmentEmulator=true;"
		namespace = "UsageEventHub__fullyQualifiedNamespace"
	)
	parse := func(env map[string]string) (HubConfig, string) {
		env = maps.Clone(env)
		env["ADMIN_KEY"] = "0123456789abcdef"
		c, err := ParseConfig("127.0.0.1:0", func(name string) string { return env[name] })
		if err != nil {
			return c.Hub, err.Error()
		}
		return c.Hub, ""
	}
	good := func(env map[string]string, want HubConfig) {
		t.Helper()
		got, problem := parse(env)
		if diff := cmp.Diff(want, got); diff != "" || problem != "" {
			t.Errorf("%v: %s%s", env, problem, diff)
		}
	}
	good(map[string]string{}, HubConfig{})
	good(map[string]string{"UsageEventHub": entity}, HubConfig{Connection: entity})
	good(map[string]string{"UsageEventHub": entity, "UsageEventHubName": "usage"}, HubConfig{Connection: entity, Name: "usage"})
	good(map[string]string{"UsageEventHub": bare, "UsageEventHubName": "usage"}, HubConfig{Connection: bare, Name: "usage"})
	good(map[string]string{"UsageEventHub": emulator, "UsageEventHubName": "u-1"}, HubConfig{Connection: emulator, Name: "u-1"})
	good(map[string]string{namespace: "n.servicebus.windows.net", "UsageEventHubName": "usage"},
		HubConfig{Namespace: "n.servicebus.windows.net", Name: "usage"})
	good(map[string]string{
		namespace: "n.servicebus.windows.net", "UsageEventHubName": "usage",
		"UsageEventHub__credential": "managedIdentity", "UsageEventHub__clientId": "id",
	}, HubConfig{Namespace: "n.servicebus.windows.net", Name: "usage", Credential: "managedIdentity", ClientID: "id"})

	bad := func(env map[string]string, want string) {
		t.Helper()
		_, problem := parse(env)
		if !strings.HasPrefix(problem, want) || strings.Contains(problem, key) || strings.Contains(problem, "\n") {
			t.Errorf("%v: %q does not say %q alone", env, problem, want)
		}
	}
	bad(map[string]string{"UsageEventHub": key}, "UsageEventHub: is no connection string")
	bad(map[string]string{"UsageEventHub": "Endpoint=n.servicebus.windows.net;SharedAccessKeyName=n;SharedAccessKey=" + key}, "UsageEventHub: is no connection string")
	bad(map[string]string{"UsageEventHub": "SharedAccessKeyName=n;SharedAccessKey=" + key}, "UsageEventHub: is no connection string")
	bad(map[string]string{"UsageEventHub": "Endpoint=sb://n.servicebus.windows.net"}, "UsageEventHub: is no connection string")
	bad(map[string]string{"UsageEventHub": bare}, "UsageEventHubName: is not set, and UsageEventHub has no EntityPath; set it")
	bad(map[string]string{"UsageEventHub": entity, "UsageEventHubName": "other"}, `UsageEventHubName: is "other", and the EntityPath of UsageEventHub is "usage"`)
	bad(map[string]string{"UsageEventHub": bare, "UsageEventHubName": "us/age"}, `UsageEventHubName: "us/age"`)
	bad(map[string]string{"UsageEventHub": entity, namespace: "n.servicebus.windows.net"}, "UsageEventHub: and "+namespace+" are both set; keep one")
	bad(map[string]string{namespace: "n.servicebus.windows.net"}, "UsageEventHubName: is not set; set it")
	bad(map[string]string{namespace: "sb://n.servicebus.windows.net", "UsageEventHubName": "u"}, namespace+`: "sb://n.servicebus.windows.net" is no host name; use the form`)
	bad(map[string]string{namespace: "n", "UsageEventHubName": "u"}, namespace+`: "n" is no host name`)
	bad(map[string]string{namespace: "n.servicebus.windows.net", "UsageEventHubName": "u", "UsageEventHub__credential": "key"},
		`UsageEventHub__credential: "key" is not known; use managedidentity`)
	bad(map[string]string{"UsageEventHubName": "usage"}, "UsageEventHub: is not set, nor is "+namespace)
}
