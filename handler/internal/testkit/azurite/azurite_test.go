package azurite

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSharedProcess(t *testing.T) {
	one, two := Start(t), Start(t)
	if one != two || !strings.Contains(one, "AccountName="+Account) {
		t.Errorf("connection strings %q and %q", one, two)
	}
	if a, b := Table(), Table(); a == b {
		t.Errorf("two tables %s", a)
	}
}

func TestStop(t *testing.T) {
	Start(t) // skips without Azurite
	p, err := Launch(os.Getenv("AZURITE"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if answer, err := http.Get(p.URL()); err == nil {
		answer.Body.Close()
		t.Error("it still answers")
	}
}

func TestAbsent(t *testing.T) {
	if _, err := Launch(filepath.Join(t.TempDir(), "none.js")); !errors.Is(err, ErrAbsent) {
		t.Errorf("got %v", err)
	}
}
