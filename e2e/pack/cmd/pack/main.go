// Command pack writes the zip of an assembled application, for `make zip`. The
// same dist gives the same bytes; their digest is printed.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/costgate/costgate/e2e/pack"
)

func main() {
	dist := flag.String("dist", "dist", "the assembled application")
	out := flag.String("out", "bin/costgate.zip", "the zip to write")
	flag.Parse()
	digest, err := write(*dist, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
	fmt.Printf("%s sha256:%x\n", *out, digest)
}

// write replaces the zip as a whole or not at all.
func write(dist, out string) (digest []byte, err error) {
	if err := os.MkdirAll(filepath.Dir(out), 0o750); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(filepath.Dir(out), ".pack-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it has its own name by then, or there was an error before
	sum := sha256.New()
	err = pack.Write(io.MultiWriter(file, sum), dist)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), out)
	}
	return sum.Sum(nil), err
}
