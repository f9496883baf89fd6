package main

import "syscall"

// childAttributes keeps a terminal's interrupt from children, which are told to end
// after the last epoch, and lets none outlive this process, however that ends. (Linux
// watches the thread that has started the child; Go's threads last.)
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
