//go:build amd64 || arm64 || riscv64 || loong64 || ppc64le || mips64le

package ps

// littleEndian is declared only where memory is little endian, so that a build
// for another machine fails here instead of corrupting what it sends: View and
// Bytes hand the wire's bytes to the processor as they are.
const littleEndian = true

var _ = littleEndian
