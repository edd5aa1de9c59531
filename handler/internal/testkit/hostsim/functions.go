package hostsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// App is what the host reads from the folder that it is given.
type App struct {
	Dir             string
	Executable      string // absolute
	WorkDir         string // absolute
	FunctionTimeout time.Duration
	Functions       []Function // by name, without letter case: the order in which routes are tried
}

// Function is one function folder.
type Function struct {
	Name    string
	Timer   bool
	Binding string // name of the trigger's binding

	// Of an HTTP function.
	Auth    string   // anonymous, function or admin
	Methods []string // upper case; empty: all
	Route   string
	pattern pattern
}

type hostFile struct {
	Schema          string         `json:"$schema"`
	Version         string         `json:"version"`
	FunctionTimeout string         `json:"functionTimeout"`
	Logging         map[string]any `json:"logging"`
	Extensions      struct {
		HTTP struct {
			RoutePrefix *string `json:"routePrefix"`
		} `json:"http"`
	} `json:"extensions"`
	CustomHandler struct {
		Description struct {
			DefaultExecutablePath string   `json:"defaultExecutablePath"`
			WorkingDirectory      string   `json:"workingDirectory"`
			Arguments             []string `json:"arguments"`
		} `json:"description"`
		EnableForwardingHTTPRequest bool `json:"enableForwardingHttpRequest"`
		EnableProxyingHTTPRequest   bool `json:"enableProxyingHttpRequest"`
	} `json:"customHandler"`
}

type functionFile struct {
	Bindings []struct {
		Type         string   `json:"type"`
		Direction    string   `json:"direction"`
		Name         string   `json:"name"`
		AuthLevel    string   `json:"authLevel"`
		Methods      []string `json:"methods"`
		Route        *string  `json:"route"`
		Schedule     string   `json:"schedule"`
		RunOnStartup bool     `json:"runOnStartup"`
		UseMonitor   *bool    `json:"useMonitor"`
	} `json:"bindings"`
}

const (
	configBytesMax       = 1 << 20
	hostFileName         = "host.json"
	functionFileName     = "function.json"
	defaultRoutePrefix   = "api"
	defaultFunctionLimit = 30 * time.Minute
)

// ReadApp reads host.json and the function folders of an assembled application
// and refuses what the host would refuse, ignore without a word, or serve in a
// form that the gateway does not understand.
func ReadApp(dir string) (*App, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var file hostFile
	if err := readStrict(filepath.Join(dir, hostFileName), &file); err != nil {
		return nil, err
	}
	app := &App{Dir: dir, FunctionTimeout: defaultFunctionLimit}
	if err := app.readHost(&file); err != nil {
		return nil, fmt.Errorf("%s: %w", hostFileName, err)
	}
	prefix := defaultRoutePrefix
	if p := file.Extensions.HTTP.RoutePrefix; p != nil {
		prefix = strings.Trim(*p, "/")
	}
	if err := app.readFunctions(prefix); err != nil {
		return nil, err
	}
	return app, nil
}

func (a *App) readHost(file *hostFile) error {
	if file.Version != "2.0" {
		return fmt.Errorf("version %q", file.Version)
	}
	if !file.CustomHandler.EnableProxyingHTTPRequest {
		return errors.New("customHandler.enableProxyingHttpRequest is not true: only proxied requests are simulated")
	}
	if text := file.FunctionTimeout; text != "" {
		limit, err := time.Parse(time.TimeOnly, text)
		if err != nil {
			return fmt.Errorf("functionTimeout %q", text)
		}
		a.FunctionTimeout = time.Duration(limit.Hour()*3600+limit.Minute()*60+limit.Second()) * time.Second
	}
	description := file.CustomHandler.Description
	name := description.DefaultExecutablePath
	switch {
	case name == "":
		return errors.New("customHandler.description.defaultExecutablePath is not set")
	case name != filepath.ToSlash(filepath.Clean(name)) || filepath.IsAbs(name):
		return fmt.Errorf("defaultExecutablePath %q: publishing makes only an entry of exactly this name executable", name)
	case len(description.Arguments) > 0:
		return errors.New("arguments are not simulated")
	}
	a.Executable, a.WorkDir = filepath.Join(a.Dir, name), filepath.Join(a.Dir, description.WorkingDirectory)
	info, err := os.Stat(a.Executable)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o100 == 0 {
		return fmt.Errorf("%s is not executable", a.Executable)
	}
	return nil
}

func (a *App) readFunctions(prefix string) error {
	err := filepath.WalkDir(a.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != functionFileName {
			return err
		}
		folder := filepath.Dir(path)
		if filepath.Dir(folder) != a.Dir {
			return fmt.Errorf("%s: the host finds functions only in folders directly below its root", path)
		}
		f, err := readFunction(path, prefix)
		a.Functions = append(a.Functions, f)
		return err
	})
	if err != nil {
		return err
	}
	if len(a.Functions) == 0 {
		return fmt.Errorf("%s: no functions", a.Dir)
	}
	slices.SortFunc(a.Functions, func(x, y Function) int { return strings.Compare(strings.ToLower(x.Name), strings.ToLower(y.Name)) })
	for i, f := range a.Functions[1:] {
		if strings.EqualFold(f.Name, a.Functions[i].Name) {
			return fmt.Errorf("two functions are named %s", f.Name)
		}
	}
	return nil
}

var functionName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,127}$`)

func readFunction(path, prefix string) (Function, error) {
	folder := filepath.Dir(path)
	f := Function{Name: filepath.Base(folder)}
	fail := func(format string, args ...any) (Function, error) {
		return f, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...))
	}
	if !functionName.MatchString(f.Name) || strings.EqualFold(f.Name, "host") {
		return fail("not a function name")
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		return fail("the folder must have this file only (%v)", err)
	}
	var file functionFile
	if err := readStrict(path, &file); err != nil {
		return f, err
	}
	if len(file.Bindings) == 0 {
		return fail("no bindings")
	}
	in := file.Bindings[0]
	f.Binding = in.Name
	if in.Direction != "in" || in.Name == "" {
		return fail("the first binding is not the trigger")
	}
	switch in.Type {
	case "timerTrigger":
		if f.Timer = true; len(file.Bindings) != 1 || len(strings.Fields(in.Schedule)) != 6 {
			return fail("a timer has one binding and a schedule of six fields")
		}
		return f, nil
	case "httpTrigger":
	default:
		return fail("trigger %q is not simulated", in.Type)
	}
	if len(file.Bindings) != 2 || file.Bindings[1].Type != "http" || file.Bindings[1].Direction != "out" || file.Bindings[1].Name != "res" {
		return fail("only a function of exactly one httpTrigger and one http output named res is proxied")
	}
	if f.Auth = in.AuthLevel; !slices.Contains([]string{"anonymous", "function", "admin"}, f.Auth) {
		return fail("authLevel %q", f.Auth)
	}
	for _, m := range in.Methods {
		f.Methods = append(f.Methods, strings.ToUpper(m))
	}
	if f.Route = f.Name; in.Route != nil {
		f.Route = *in.Route
	}
	if first := strings.ToLower(strings.SplitN(f.Route, "/", 2)[0]); first == "admin" || first == "runtime" {
		return fail("routes of %s are the host's own", first)
	}
	var err error
	if f.pattern, err = parsePattern(strings.TrimPrefix(prefix+"/"+f.Route, "/")); err != nil {
		return fail("%v", err)
	}
	return f, nil
}

// readStrict refuses names that it does not know: the host ignores them, which
// hides a misspelled one.
func readStrict(path string, into any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > configBytesMax {
		return fmt.Errorf("%s: larger than %d bytes", path, configBytesMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if decoder.More() {
		return fmt.Errorf("%s: more than one value", path)
	}
	return nil
}
