package server

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// It is a white-box test because the document is held against what has no other name: the
// paths, the fields that bodies may have, and the types that replies are made of.

func readDocument(t *testing.T) (paths map[string]map[string]any, schemas map[string]map[string]any) {
	t.Helper()
	var d struct {
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d.Paths, d.Components.Schemas
}

func TestTheDocumentHasTheHandlersPathsAndMethods(t *testing.T) {
	paths, _ := readDocument(t)
	endpoints := new(Server).endpoints()
	for path, e := range endpoints {
		if methods := slices.Collect(maps.Keys(paths[path])); len(methods) != 1 || !strings.EqualFold(methods[0], e.method) {
			t.Errorf("%s %s: the document has %v", e.method, path, methods)
		}
	}
	for path := range paths {
		if _, ok := endpoints[path]; !ok {
			t.Errorf("the document has %s, which there is not", path)
		}
	}
}

// properties returns the names of a schema's properties.
func properties(schema map[string]any) []string {
	all, _ := schema["properties"].(map[string]any)
	return slices.Sorted(maps.Keys(all))
}

func TestTheDocumentHasTheFieldsOfTheBodies(t *testing.T) {
	_, schemas := readDocument(t)
	// A body with an unknown field is told which there are.
	known := regexp.MustCompile(`want some of ([a-z_, ]*):`)
	for name, read := range map[string]func(*scan) error{
		"PredictRequest":  func(s *scan) error { _, _, err := predictBody(s); return err },
		"RankRequest":     func(s *scan) error { _, _, err := rankBody(s); return err },
		"RetrieveRequest": func(s *scan) error { _, _, err := retrieveBody(s); return err },
		"ExplainRequest":  func(s *scan) error { _, _, err := explainBody(s); return err },
		"Filter":          func(s *scan) error { _, err := s.filter(); return err },
	} {
		s, err := newScan([]byte(`{"?":1}`))
		if err != nil {
			t.Fatal(err)
		}
		fields := known.FindStringSubmatch(read(s).Error())
		want := slices.Sorted(slices.Values(strings.Split(fields[1], ", ")))
		if got := properties(schemas[name]); !slices.Equal(got, want) {
			t.Errorf("%s: the document has %v, bodies have %v", name, got, want)
		}
		if schemas[name]["additionalProperties"] != false {
			t.Errorf("%s: the document takes other fields", name)
		}
	}
}

func TestTheDocumentHasTheFieldsOfTheReplies(t *testing.T) {
	_, schemas := readDocument(t)
	for name, reply := range map[string]any{
		"PredictResponse": predictReply{}, "Prediction": prediction{}, "Served": served{}, "RankResponse": rankReply{},
		"RetrieveResponse": retrieveReply{}, "ExplainResponse": explainReply{}, "ModelsResponse": modelsReply{}, "Problem": problem{},
	} {
		var all, always []string
		for field := range reflect.TypeOf(reply).Fields() {
			tag, option, _ := strings.Cut(field.Tag.Get("json"), ",")
			all = append(all, tag)
			if option == "" {
				always = append(always, tag)
			}
		}
		slices.Sort(all)
		if got := properties(schemas[name]); !slices.Equal(got, all) {
			t.Errorf("%s: the document has %v, replies have %v", name, got, all)
		}
		for _, field := range always {
			if required, _ := schemas[name]["required"].([]any); !slices.Contains(required, any(field)) {
				t.Errorf("%s: %s is in every reply, which the document does not say", name, field)
			}
		}
	}
}
