package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/costgate/costgate/handler/internal/funchost"
	"github.com/costgate/costgate/handler/internal/lake"
	"github.com/costgate/costgate/handler/internal/pricing"
	"github.com/costgate/costgate/handler/internal/service"
)

// setting is one environment variable. The table below is the only place where
// settings are named; the README's table is made from it.
type setting struct {
	name, meaning, fallback string
	secret                  bool
}

var settings = []setting{
	{"AZURE_OPENAI_ENDPOINT", "Azure OpenAI, `http(s)://host[:port][/base]`; or `simulator`, the built-in one", "`simulator` standalone; required when hosted", false},
	{"AZURE_OPENAI_API_KEY", "its key; without one the managed identity is used", "", true},
	{"QuotaStorage", "Table Storage connection string, or `UseDevelopmentStorage=true`", "embedded store in DATA_DIR; required when hosted", true},
	{"QuotaStorage__tableServiceUri", "Table Storage by identity: the table service's URI", "", false},
	{"QuotaStorage__credential", "`managedidentity`, or empty for the default chain of credentials", "", false},
	{"QuotaStorage__clientId", "client id of a user-assigned identity", "", false},
	{"QuotaTableName", "prefix of the tables", "`Costgate`", false},
	{"UsageEventHub", "Event Hubs connection string, the emulator's form included: records go there", "records go to the folder `lake` in DATA_DIR", true},
	{"UsageEventHub__fullyQualifiedNamespace", "Event Hubs by identity: `<namespace>.servicebus.windows.net`", "", false},
	{"UsageEventHub__credential", "`managedidentity`, or empty for the default chain of credentials", "", false},
	{"UsageEventHub__clientId", "client id of a user-assigned identity", "", false},
	{"UsageEventHubName", "the event hub", "the connection string's `EntityPath`", false},
	{"DATA_DIR", "folder of the embedded store and of the local lake", "`./.data`", false},
	{"DEPLOYMENTS", "JSON, or a file of it: what each deployment is, `{\"gpt4o\":{\"model\":\"gpt-4o\",\"version\":\"2024-11-20\",\"sku\":\"GlobalStandard\",\"region\":\"eastus\"}}`", "a deployment's name is its model", false},
	{"PRICES_FILE", "JSON, or files of it, separated by commas: prices to add to the embedded book or to replace in it; a later file wins", "", false},
	{"SERVICES", "JSON, or a file of it: other HTTP services to forward to, `{\"w\":{\"url\":\"https://h/base\",\"pricePerCall\":\"0.001\"}}` (docs/SERVICES.md)", "`services/` has none", false},
	{"UNMETERED_PATHS", "paths below `openai/` to forward without charge, separated by commas, for example `v1/files,v1/files/*`", "", false},
	{"STREAM_MAX", "how long an answer may take", "`25m`", false},
	{"STREAM_KEEPALIVE", "silence after which a stream gets an SSE comment; `0`: never", "`60s`", false},
	{"ADMIN_KEY", "key of the api routes, standalone only (hosted, the Functions host checks its own)", "required standalone", true},
	{"RETENTION_DAYS", "days for which records stay in the tables behind the end of their period; then, if the lake has them, their sum stays; `0`: for ever", "`400`", false},
	{"NOTIFY_WEBHOOK_URL", "receiver of notifications: a signed webhook when a product's spending reaches a share of its budget (`notifyAt`)", "nobody is told", true},
	{"NOTIFY_WEBHOOK_SECRET", "key of their signatures: `whsec_` and base64, or any text of at most 256 characters", "required with NOTIFY_WEBHOOK_URL", true},
	{"LOG_CONTENT", "`on`: log the beginning of every prompt and answer, 32 KiB each. Records never have them", "`off`", false},
	{"LOG_LEVEL", "`debug`, `info`, `warn` or `error`", "`info`", false},
}

const (
	simulatorEndpoint = "simulator"
	managedIdentity   = "managedidentity"
	keyBytesMin       = 16
	keyBytesMax       = 256
)

// Config is what the environment says.
type Config struct {
	Listen      string
	Hosted      bool
	Endpoint    string
	APIKey      string
	Storage     string
	StorageURI  string
	Credential  string
	ClientID    string
	TableName   string
	Hub         HubConfig
	Notify      NotifyConfig
	Services    *service.Services
	DataDir     string
	Deployments map[string]pricing.Deployment
	Prices      *pricing.Book // additions to the embedded book; nil: none
	Unmetered   []string
	StreamMax   time.Duration
	KeepAlive   time.Duration
	Retention   time.Duration // of records in the tables; 0: for ever
	LogContent  bool
	AdminKey    string
	LogLevel    slog.Level
}

// HubConfig says where records go. The zero value is the local folder.
type HubConfig struct {
	Connection string
	Namespace  string
	Credential string
	ClientID   string
	Name       string // of the hub; empty: the connection string has it
}

// settingError names the setting at fault, what is wrong, and what to do.
type settingError struct{ name, problem string }

func (e *settingError) Error() string { return e.name + ": " + e.problem }

// ParseConfig reads the settings and reports everything that is wrong at once.
func ParseConfig(listen string, getenv func(string) string) (*Config, error) {
	c := &Config{Listen: listen}
	var problems []error
	problem := func(name, format string, args ...any) {
		problems = append(problems, &settingError{name, fmt.Sprintf(format, args...)})
	}
	or := func(name, fallback string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return fallback
	}
	port, hosted, err := funchost.Port(getenv)
	if err != nil {
		problem("FUNCTIONS_CUSTOMHANDLER_PORT", "%v", err)
	}
	if c.Hosted = hosted; hosted {
		c.Listen = net.JoinHostPort("127.0.0.1", port)
	}
	c.APIKey, c.Storage, c.StorageURI = getenv("AZURE_OPENAI_API_KEY"), getenv("QuotaStorage"), getenv("QuotaStorage__tableServiceUri")
	c.Credential, c.ClientID = getenv("QuotaStorage__credential"), getenv("QuotaStorage__clientId")
	c.TableName, c.DataDir, c.AdminKey = or("QuotaTableName", "Costgate"), or("DATA_DIR", "./.data"), getenv("ADMIN_KEY")
	c.readEndpoint(getenv("AZURE_OPENAI_ENDPOINT"), problem)
	c.readStorage(problem)
	c.Hub = readHub(getenv, problem)
	c.Notify = readNotify(getenv, problem)
	c.Services = readServices(getenv, problem)
	c.readPrices(getenv, problem)
	for _, path := range strings.Split(getenv("UNMETERED_PATHS"), ",") {
		if path = strings.TrimSpace(path); path != "" {
			c.Unmetered = append(c.Unmetered, path)
		}
	}
	c.StreamMax = duration("STREAM_MAX", or("STREAM_MAX", "25m"), time.Second, problem)
	if hosted {
		c.checkStreamMax(or(funchost.RootVariable, "."), problem) // the host starts its handler there
	}
	c.KeepAlive = duration("STREAM_KEEPALIVE", or("STREAM_KEEPALIVE", "60s"), 0, problem)
	if hosted && c.KeepAlive > keepAliveMax {
		problem("STREAM_KEEPALIVE", "%v is too long: the platform ends what is silent for 230 s; use at most %v, or 0 for never", c.KeepAlive, keepAliveMax)
	}
	switch value := or("LOG_CONTENT", "off"); strings.ToLower(value) {
	case "on":
		c.LogContent = true
	case "off":
	default:
		problem("LOG_CONTENT", "%q is neither on nor off", value)
	}
	c.Retention = days("RETENTION_DAYS", or("RETENTION_DAYS", "400"), problem)
	if err := c.LogLevel.UnmarshalText([]byte(or("LOG_LEVEL", "info"))); err != nil {
		problem("LOG_LEVEL", "%q is not a level; use debug, info, warn or error", getenv("LOG_LEVEL"))
	}
	if !hosted {
		switch n := len(c.AdminKey); {
		case n == 0:
			problem("ADMIN_KEY", "is not set; standalone the api routes need one: set it to a secret of %d to %d characters", keyBytesMin, keyBytesMax)
		case n < keyBytesMin || n > keyBytesMax:
			problem("ADMIN_KEY", "has %d characters; use %d to %d", n, keyBytesMin, keyBytesMax)
		}
	}
	return c, errors.Join(problems...)
}

func (c *Config) readEndpoint(endpoint string, problem func(name, format string, args ...any)) {
	const name = "AZURE_OPENAI_ENDPOINT"
	switch {
	case endpoint == "" && c.Hosted:
		problem(name, "is not set; hosted there is no simulator: set it to https://<resource>.openai.azure.com")
	case endpoint == "":
		c.Endpoint = simulatorEndpoint
	case endpoint == simulatorEndpoint && c.Hosted:
		problem(name, "the simulator is for standalone use; set it to https://<resource>.openai.azure.com")
	case endpoint != simulatorEndpoint && !strings.HasPrefix(endpoint, "http://") && !strings.HasPrefix(endpoint, "https://"):
		problem(name, "%q is not a URL; use http(s)://host[:port][/base] or \"simulator\"", endpoint)
	default:
		c.Endpoint = endpoint
	}
}

func (c *Config) readStorage(problem func(name, format string, args ...any)) {
	switch {
	case c.Storage != "" && c.StorageURI != "":
		problem("QuotaStorage", "and QuotaStorage__tableServiceUri are both set; keep one")
	case c.Storage == "" && c.StorageURI == "" && c.Hosted:
		problem("QuotaStorage", "is not set; hosted no disk outlives the process: set it, or QuotaStorage__tableServiceUri")
	}
	checkCredential("QuotaStorage__credential", c.Credential, problem)
	if n := len(c.TableName); n < 3 || n > 40 || strings.IndexFunc(c.TableName, notAlphanumeric) >= 0 || c.TableName[0] <= '9' {
		problem("QuotaTableName", "%q is no table name; use 3 to 40 letters and digits, a letter first", c.TableName)
	}
}

func checkCredential(name, kind string, problem func(name, format string, args ...any)) {
	if kind != "" && !strings.EqualFold(kind, managedIdentity) {
		problem(name, "%q is not known; use managedidentity, or leave it out", kind)
	}
}

func readHub(getenv func(string) string, problem func(name, format string, args ...any)) HubConfig {
	const connection, namespace, kind, name = "UsageEventHub", "UsageEventHub__fullyQualifiedNamespace", "UsageEventHub__credential", "UsageEventHubName"
	h := HubConfig{
		Connection: getenv(connection), Namespace: getenv(namespace), Credential: getenv(kind),
		ClientID: getenv("UsageEventHub__clientId"), Name: getenv(name),
	}
	checkCredential(kind, h.Credential, problem)
	if h.Name != "" {
		if err := lake.CheckHub(h.Name); err != nil {
			problem(name, "%v", err)
		}
	}
	inString := ""
	if h.Connection != "" {
		var err error
		if inString, err = lake.CheckConnection(h.Connection); err != nil {
			problem(connection, "is no connection string of Event Hubs: %v; copy one from the namespace's or the hub's shared access policies", err)
			return h
		}
	}
	if h.Namespace != "" {
		if err := lake.CheckNamespace(h.Namespace); err != nil {
			problem(namespace, "%v", err)
		}
	}
	switch {
	case h.Connection != "" && h.Namespace != "":
		problem(connection, "and %s are both set; keep one", namespace)
	case h.Connection != "" && inString == "" && h.Name == "":
		problem(name, "is not set, and %s has no EntityPath; set it to the name of the event hub", connection)
	case inString != "" && h.Name != "" && h.Name != inString:
		problem(name, "is %q, and the EntityPath of %s is %q; leave one of them out", h.Name, connection, inString)
	case h.Namespace != "" && h.Name == "":
		problem(name, "is not set; set it to the name of the event hub in %s", namespace)
	case h.Connection == "" && h.Namespace == "" && (h.Name != "" || h.Credential != "" || h.ClientID != ""):
		problem(connection, "is not set, nor is %s, and other settings of the event hub are; set one, or leave them out", namespace)
	}
	return h
}

func notAlphanumeric(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

func (c *Config) readPrices(getenv func(string) string, problem func(name, format string, args ...any)) {
	if text, err := inlineOrFile(getenv("DEPLOYMENTS")); err != nil {
		problem("DEPLOYMENTS", "%v", err)
	} else if text != "" { // no setting
		if c.Deployments, err = pricing.ParseDeployments(text); err != nil {
			problem("DEPLOYMENTS", "%v", err)
		}
	}
	if prices, err := parsePrices(getenv("PRICES_FILE")); err != nil {
		problem("PRICES_FILE", "%v", err)
	} else {
		c.Prices = prices
	}
}

const (
	settingFileBytesMax = 16 << 20
	priceFilesMax       = 16
)

// parsePrices reads prices: JSON, or the paths of files of it, separated by
// commas. What a later file says about a price counts. No setting is nil.
func parsePrices(value string) (*pricing.Book, error) {
	if value == "" {
		return nil, nil
	}
	sources := []string{value}
	if !isJSON(value) {
		sources = strings.Split(value, ",")
	}
	switch {
	case len(sources) > 1 && slices.ContainsFunc(sources, isJSON):
		return nil, errors.New("has JSON among paths; write it into a file of its own")
	case len(sources) > priceFilesMax:
		return nil, fmt.Errorf("names %d files; at most %d are read", len(sources), priceFilesMax)
	}
	var book *pricing.Book
	for i, source := range sources {
		source = strings.TrimSpace(source)
		if source == "" {
			return nil, fmt.Errorf("element %d of %d is empty; remove the comma, or name a file", i+1, len(sources))
		}
		text, err := inlineOrFile(source)
		if err != nil {
			return nil, err
		}
		overlay, err := pricing.Parse([]byte(text))
		switch {
		case err != nil && !isJSON(source):
			return nil, fmt.Errorf("%s: %w", source, err)
		case err != nil && !strings.HasSuffix(source, "}"):
			return nil, fmt.Errorf("%w (JSON cannot be mixed with paths; write it into a file of its own)", err)
		case err != nil:
			return nil, err
		case book == nil:
			book = overlay
		default:
			book = book.With(overlay)
		}
	}
	return book, nil
}

// isJSON tells whether a setting is JSON itself, not the path of a file.
func isJSON(value string) bool { return strings.HasPrefix(strings.TrimSpace(value), "{") }

// inlineOrFile is a setting that is JSON if it begins with a brace, else the
// path of a file, whose text must begin with one.
func inlineOrFile(value string) (string, error) {
	if value == "" || isJSON(value) {
		return value, nil
	}
	info, err := os.Stat(value)
	if err != nil {
		return "", fmt.Errorf("is neither JSON (it would begin with {) nor a file that can be read: %w", err)
	}
	if info.Size() > settingFileBytesMax {
		return "", fmt.Errorf("file %s is larger than %d bytes", value, settingFileBytesMax)
	}
	data, err := os.ReadFile(value)
	switch text := string(data); {
	case err != nil:
		return "", err
	case strings.HasPrefix(text, "\ufeff"):
		return "", fmt.Errorf("file %s begins with a byte order mark; save it as UTF-8 without one", value)
	case strings.ContainsRune(text, 0): // every second byte of UTF-16
		return "", fmt.Errorf("file %s is UTF-16; save it as UTF-8 without a byte order mark", value)
	case strings.TrimSpace(text) == "":
		return "", fmt.Errorf("file %s is empty; write an object {...} into it, or leave the setting out", value)
	case !isJSON(text):
		return "", fmt.Errorf("file %s is not one JSON object; it must begin with {", value)
	default:
		return text, nil
	}
}

// checkStreamMax holds STREAM_MAX against host.json. A file that cannot be read
// is the host's to refuse.
func (c *Config) checkStreamMax(root string, problem func(name, format string, args ...any)) {
	limit, err := funchost.FunctionTimeout(root)
	if err == nil && limit > 0 && c.StreamMax+hostedMargin >= limit {
		problem("STREAM_MAX", "%v is too near to functionTimeout in host.json, %v, at which the host ends this process with all that it serves: "+
			"lower it to less than %v, or raise functionTimeout", c.StreamMax, limit, limit-hostedMargin)
	}
}

const (
	retentionDaysMax = 36_500
	keepAliveMax     = 220 * time.Second // hosted: the platform ends what is silent for 230 s
)

// days reads a whole number of days.
func days(name, text string, problem func(name, format string, args ...any)) time.Duration {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > retentionDaysMax {
		problem(name, "%q is not a number of days from 1 to %d, or 0 for ever", text, retentionDaysMax)
	}
	return time.Duration(n) * 24 * time.Hour
}

func duration(name, text string, least time.Duration, problem func(name, format string, args ...any)) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < least {
		problem(name, "%q is not a duration of at least %v; use a form like 90s or 25m", text, least)
	}
	return d
}
