// Package pack makes the zip of an assembled application (dist/) that Azure
// deploys: by `az functionapp deployment source config-zip`, OneDeploy, or a
// blob that the app runs from.
//
// Invariants: the same files give the same bytes, whenever and wherever; the
// archive has host.json, the function folders and the handler, in the order of
// their names, and nothing else; only the handler is executable.
//
// The func CLI makes a zip of its own. The tests hold both to the same list.
package pack

import (
	"archive/zip"
	"compress/flate"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	hostFile     = "host.json"
	functionFile = "function.json"

	// Without the executable bit the host cannot start the handler on Premium:
	// only Consumption and Flex Consumption set it themselves.
	modeFile    fs.FileMode = 0o644
	modeHandler fs.FileMode = 0o755
)

// leftOut lies beside an application on a developer's machine and is never
// deployed: local settings have secrets.
var leftOut = []string{".funcignore", "local.settings.json"}

// epoch is the earliest time that a zip can tell.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// File is a file of the archive, by its name there.
type File struct {
	Name string
	Mode fs.FileMode
}

// Files lists what is to be deployed from dist, sorted by name. A file or a
// folder that does not belong there is an error, as is a handler that the host
// could not run on linux/amd64.
func Files(dist string) ([]File, error) {
	handler, err := handlerName(filepath.Join(dist, hostFile))
	if err != nil {
		return nil, err
	}
	if err := checkHandler(filepath.Join(dist, handler)); err != nil {
		return nil, fmt.Errorf("%s: %w", handler, err)
	}
	files := []File{{hostFile, modeFile}, {handler, modeHandler}}
	entries, err := os.ReadDir(dist)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case name == hostFile, name == handler, slices.Contains(leftOut, name):
		case !entry.IsDir():
			return nil, fmt.Errorf("%s: does not belong into the package", name)
		default:
			if err := checkFolder(filepath.Join(dist, name)); err != nil {
				return nil, err
			}
			files = append(files, File{path.Join(name, functionFile), modeFile})
		}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// Write writes the archive of dist.
func Write(w io.Writer, dist string) error {
	files, err := Files(dist)
	if err != nil {
		return err
	}
	archive := zip.NewWriter(w)
	archive.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestCompression)
	})
	for _, file := range files {
		if err := add(archive, filepath.Join(dist, filepath.FromSlash(file.Name)), file); err != nil {
			return err
		}
	}
	return archive.Close()
}

func add(archive *zip.Writer, source string, file File) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	header := &zip.FileHeader{Name: file.Name, Method: zip.Deflate, Modified: epoch}
	header.SetMode(file.Mode)
	out, err := archive.CreateHeader(header)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return err
}

// handlerName reads the executable's name, which must be that of an entry:
// tools that publish compare them as texts.
func handlerName(hostPath string) (string, error) {
	data, err := os.ReadFile(hostPath)
	if err != nil {
		return "", err
	}
	var host struct {
		CustomHandler struct {
			Description struct {
				DefaultExecutablePath string `json:"defaultExecutablePath"`
			} `json:"description"`
		} `json:"customHandler"`
	}
	if err := json.Unmarshal(data, &host); err != nil {
		return "", fmt.Errorf("%s: %w", hostFile, err)
	}
	name := host.CustomHandler.Description.DefaultExecutablePath
	if name == "" || name != path.Base(name) || name == "." {
		return "", fmt.Errorf("%s: defaultExecutablePath %q is not the name of a file beside it", hostFile, name)
	}
	return name, nil
}

func checkFolder(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	if len(entries) != 1 || entries[0].Name() != functionFile || !entries[0].Type().IsRegular() {
		return fmt.Errorf("%s: a function's folder has function.json, and no other file", filepath.Base(folder))
	}
	return nil
}

// checkHandler refuses what would be deployed and then not start: a binary for
// the developer's own machine, or one that needs a C library.
func checkHandler(name string) error {
	if info, err := os.Lstat(name); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	binary, err := elf.Open(name)
	if err != nil {
		return fmt.Errorf("not a Linux binary; run make package: %w", err)
	}
	defer binary.Close() //nolint:errcheck // nothing was written
	if binary.Machine != elf.EM_X86_64 {
		return fmt.Errorf("built for %v, not for amd64; run make package", binary.Machine)
	}
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			return errors.New("linked dynamically; build it with CGO_ENABLED=0")
		}
	}
	return nil
}
