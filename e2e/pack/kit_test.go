package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const repository = "../.."

// sources is what make needs to assemble and zip the application.
var sources = []string{
	"Makefile", "go.mod", "go.sum", "host.json", "local.settings.json", ".funcignore", "functions", "handler", "e2e/pack", "e2e/package-lock.json",
}

func copySources(t *testing.T, root string) {
	t.Helper()
	for _, source := range sources {
		err := filepath.WalkDir(filepath.Join(repository, source), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !entry.Type().IsRegular() {
				return err
			}
			if info, err := entry.Info(); err != nil || info.Size() > 16<<20 { // binaries that somebody has built
				return err
			}
			relative, err := filepath.Rel(repository, name)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			put(t, filepath.Join(root, relative), string(data), 0o644)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

const makeLimit = 10 * time.Minute // a build without a cache, on a busy machine

// runMake runs make as a user would, in dir. The make that runs the tests must
// not be its parent.
func runMake(t *testing.T, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), makeLimit)
	defer cancel()
	command := exec.CommandContext(ctx, "sh", append([]string{"-c", `umask "${TEST_UMASK:-022}"; exec make "$@"`, "make"}, args...)...)
	command.Dir = dir
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS") })
	command.Env = append(command.Env, env...)
	out, err := command.CombinedOutput()
	return string(out), err
}

type packaged struct{ root, dist, zip string }

var built struct {
	sync.Once
	root, out string
	err       error
}

// build runs make zip in a copy of the sources, once for all tests.
func build(t *testing.T) packaged {
	t.Helper()
	built.Do(func() {
		built.root, built.err = os.MkdirTemp("", "costgate-pack-*") // the first test's own folder would go with that test
		if built.err == nil {
			copySources(t, built.root)
			built.out, built.err = runMake(t, built.root, nil, "zip")
		}
	})
	if built.err != nil {
		t.Fatalf("make zip: %v\n%s", built.err, built.out)
	}
	return packaged{built.root, filepath.Join(built.root, "dist"), filepath.Join(built.root, "bin", "costgate.zip")}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.root != "" {
		_ = os.RemoveAll(built.root)
	}
	os.Exit(code)
}

// readZip lists an archive as `mode name` lines, in its order.
func readZip(t *testing.T, name string) []string {
	t.Helper()
	archive, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var lines []string
	for _, f := range archive.File {
		if made := f.CreatorVersion >> 8; made != 3 {
			t.Errorf("%s: made by system %d; only Unix's modes count", f.Name, made)
		}
		if !f.Mode().IsRegular() || !f.Modified.Equal(epoch) {
			t.Errorf("%s: %v, %v", f.Name, f.Mode(), f.Modified)
		}
		lines = append(lines, f.Mode().Perm().String()+" "+f.Name)
	}
	return lines
}

// binaryFor makes the head of a program: enough for a look at what it is.
func binaryFor(t *testing.T, machine elf.Machine, dynamic bool) string {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Ehsize: 64, Phentsize: 56, Shentsize: 64, Phoff: 64, Phnum: 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	segment := elf.Prog64{Type: uint32(elf.PT_LOAD)}
	if dynamic {
		segment.Type = uint32(elf.PT_INTERP)
	}
	var b bytes.Buffer
	for _, part := range []any{header, segment} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
