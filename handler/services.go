package main

import (
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/costgate/costgate/handler/internal/service"
)

// readServices reads SERVICES: JSON, or the path of a file of it.
func readServices(getenv func(string) string, problem func(name, format string, args ...any)) *service.Services {
	const name = "SERVICES"
	text, err := inlineOrFile(getenv(name))
	if err != nil {
		problem(name, "%v", err)
		return nil
	}
	services, problems := service.Parse(text, getenv)
	for _, found := range problems {
		problem(name, "%v", found)
	}
	return services
}

// openServices is the path to the services that SERVICES registers, by the parts
// that the path to Azure OpenAI has.
func (a *App) openServices() error {
	o := service.Options{
		Services: a.config.Services, Proxy: a.proxy, Ledger: a.ledger, StreamMax: a.config.StreamMax, KeepAlive: a.config.KeepAlive,
		Trailers: !a.config.Hosted, Log: a.log,
	}
	if a.config.Hosted {
		o.AnswerWait = hostedWait
	}
	for name, entry := range a.config.Services.Entries {
		if entry.Auth != service.AuthIdentity || o.Credential != nil {
			continue
		}
		var credential azcore.TokenCredential
		credential, err := identity(a.config.Credential, a.config.ClientID)
		if err != nil {
			return &settingError{"SERVICES", name + ".auth: there is no identity: " + err.Error()}
		}
		o.Credential = credential
	}
	a.services = service.New(o)
	a.closers = append(a.closers, a.services.Close)
	return nil
}
