//go:build !linux

package main

import "syscall"

// childAttributes keeps a terminal's interrupt from children, which are told to end
// after the last epoch.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
