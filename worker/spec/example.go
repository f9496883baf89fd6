package spec

import _ "embed"

//go:embed example.yaml
var example string

// Example returns a complete spec with every key, commented. It can be parsed.
func Example() []byte { return []byte(example) }
