package checkpoint

import (
	"os"
	"syscall"
)

// setUncached makes what is written to f bypass the page cache, or not, and reports
// whether it does now. Then memory, length and place of a write must be multiples of
// uncachedBytes, or it fails with EINVAL.
func setUncached(f *os.File, uncached bool) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	set := false
	err = raw.Control(func(fd uintptr) {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0)
		if errno != 0 {
			return
		}
		flags &^= syscall.O_DIRECT
		if uncached {
			flags |= syscall.O_DIRECT
		}
		_, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_SETFL, flags)
		set = uncached && errno == 0 // a file system that cannot do it says so
	})
	return err == nil && set
}
