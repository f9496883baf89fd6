package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/freshet-ml/freshet"

// arrows is the content of arrows.txt.
type arrows struct {
	allowed map[string][]string // package -> packages it may import, all within the module
	guarded map[string][]string // prefix of third-party import paths -> packages that may see them
}

func readArrows(t *testing.T) arrows {
	t.Helper()
	file, err := os.Open("arrows.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	a := arrows{allowed: map[string][]string{}, guarded: map[string][]string{}}
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, list, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("arrows.txt:%d: no colon", n)
		}
		into := a.allowed
		if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
			into = a.guarded
		}
		if _, twice := into[name]; twice {
			t.Fatalf("arrows.txt:%d: %s is listed twice", n, name)
		}
		into[name] = strings.Fields(list)
	}
	return a
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports", "./...")
	list.Dir = ".."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module+"/")
		if p.ImportPath != "test" {
			all = append(all, p)
		}
	}
}

func TestEveryImportIsAnArrowThatSomebodyMeant(t *testing.T) {
	a := readArrows(t)
	used := make(map[string]bool)
	for _, p := range packages(t) {
		may, known := a.allowed[p.ImportPath]
		if !known {
			t.Errorf("package %s is not in arrows.txt", p.ImportPath)
		}
		used[p.ImportPath] = true
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				used[p.ImportPath+" "+own] = true
				if !slices.Contains(may, own) && !slices.Contains(may, "*") {
					t.Errorf("%s imports %s: no such arrow in arrows.txt", p.ImportPath, own)
				}
				continue
			}
			for prefix, who := range a.guarded {
				if strings.HasPrefix(imported, prefix) {
					used[prefix+" "+p.ImportPath] = true
					if !slices.Contains(who, p.ImportPath) {
						t.Errorf("%s imports %s: arrows.txt keeps it to %v", p.ImportPath, imported, who)
					}
				}
			}
		}
	}
	for name, list := range a.allowed {
		if !used[name] {
			t.Errorf("arrows.txt lists %s, which does not exist", name)
		}
		for _, to := range list {
			if to != "*" && !used[name+" "+to] {
				t.Errorf("arrows.txt allows %s to import %s, and it does not", name, to)
			}
		}
	}
	for prefix, list := range a.guarded {
		for _, who := range list {
			if !used[prefix+" "+who] {
				t.Errorf("arrows.txt allows %s to see %s, and it does not", who, prefix)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "proto/") {
			continue
		}
		if p.Doc == "" {
			t.Errorf("package %s has no package comment", p.ImportPath)
		}
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "base", "types"}, p.Name) {
			t.Errorf("package %s: the name says nothing", p.ImportPath)
		}
	}
}

func TestTheTopLevelHoldsOnlyWhatItShould(t *testing.T) {
	allowed := []string{
		"cmd", "ps", "worker", "coordinator", "proto", "charts", "test", "go.mod", "go.sum", "Makefile",
		"README.md", "LICENSE", "bin",
	}
	entries, err := filepath.Glob("../*")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := filepath.Base(entry); !slices.Contains(allowed, name) && !strings.HasPrefix(name, ".") {
			t.Errorf("%s does not belong at the top level", name)
		}
	}
}
