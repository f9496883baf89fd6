//go:build !linux

package main

import "syscall"

// ended is for Linux only.
func ended() *syscall.SysProcAttr { return nil }
