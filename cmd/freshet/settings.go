package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// layerSettings gives every flag that the command line does not set its value from
// the environment or, failing that, from the file of --config.
func layerSettings(cmd *cobra.Command) error {
	flags := cmd.Flags()
	path := flags.Lookup("config").Value.String()
	if value, ok := os.LookupEnv(variable("config")); ok && !flags.Changed("config") {
		path = value
	}
	file, err := readSettings(path)
	if err != nil {
		return err
	}
	for name, s := range file {
		if name == "config" || name == "help" || !knownAnywhere(cmd.Root(), name) {
			return fmt.Errorf("%s:%d: no command has a setting %q", path, s.line, name)
		}
	}
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == "config" || failed != nil {
			return
		}
		value, ok := os.LookupEnv(variable(f.Name))
		from := variable(f.Name)
		if !ok {
			s, ok := file[f.Name]
			if !ok {
				return
			}
			value, from = s.value, fmt.Sprintf("%s:%d", path, s.line)
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("%s: %w", from, flagError(err))
		}
	})
	return failed
}

// variable returns the environment variable of a flag.
func variable(flag string) string {
	return "FRESHET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setting is a flag's value in a file, as it would stand on the command line.
type setting struct {
	value string
	line  int
}

func readSettings(path string) (map[string]setting, error) {
	if path == "" {
		return nil, nil
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(doc, &document); err != nil {
		return nil, fmt.Errorf("settings in %s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(document.Content) == 0 {
		return nil, nil // nothing but comments
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines such as until-end: true, by flag name", path, top.Line)
	}
	settings := make(map[string]setting)
	for i := 0; i+1 < len(top.Content); i += 2 {
		name, line := top.Content[i].Value, top.Content[i].Line
		if _, ok := settings[name]; ok {
			return nil, fmt.Errorf("%s:%d: %s is set twice", path, line, name)
		}
		value, err := flat(top.Content[i+1])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", path, line, name, err)
		}
		settings[name] = setting{value, line}
	}
	return settings, nil
}

// flat returns a value of a settings file as it would stand on the command line.
func flat(value *yaml.Node) (string, error) {
	switch value.Kind {
	case yaml.ScalarNode:
		return value.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, len(value.Content))
		for i, part := range value.Content {
			if part.Kind != yaml.ScalarNode {
				return "", errors.New("want a value or a list of values")
			}
			parts[i] = part.Value
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("want a value or a list of values")
}

// knownAnywhere reports whether some command has the flag: one file may hold the
// settings of several roles.
func knownAnywhere(cmd *cobra.Command, name string) bool {
	if cmd.Flags().Lookup(name) != nil || cmd.PersistentFlags().Lookup(name) != nil {
		return true
	}
	for _, sub := range cmd.Commands() {
		if knownAnywhere(sub, name) {
			return true
		}
	}
	return false
}
