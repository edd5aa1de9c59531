package funchost

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// RootVariable is the environment variable by which the host names the folder
// of host.json.
const RootVariable = "FUNCTIONS_APP_ROOT_PATH"

const (
	hostFileBytesMax       = 1 << 20
	defaultFunctionTimeout = 30 * time.Minute // of every plan but Consumption
)

// FunctionTimeout reads from host.json how long a call may take; 0: for ever. A
// call that takes longer is the end of this process.
func FunctionTimeout(root string) (time.Duration, error) {
	path := filepath.Join(root, "host.json")
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if info.Size() > hostFileBytesMax {
		return 0, fmt.Errorf("%s: larger than %d bytes", path, hostFileBytesMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var file struct{ FunctionTimeout string }
	if err := json.Unmarshal(data, &file); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return parseTimeout(file.FunctionTimeout)
}

// parseTimeout reads hh:mm:ss, with days before a point, or -1.
func parseTimeout(text string) (time.Duration, error) {
	switch text {
	case "":
		return defaultFunctionTimeout, nil
	case "-1":
		return 0, nil
	}
	days, clock, hasDays := strings.Cut(text, ".")
	if !hasDays {
		days, clock = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16)
	at, clockErr := time.Parse(time.TimeOnly, clock)
	if err := errors.Join(err, clockErr); err != nil {
		return 0, fmt.Errorf("functionTimeout %q is not of the form hh:mm:ss", text)
	}
	limit := time.Duration(n)*24*time.Hour + time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second
	if limit <= 0 {
		return 0, fmt.Errorf("functionTimeout %q is no time", text)
	}
	return limit, nil
}
