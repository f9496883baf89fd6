package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/spf13/cobra"
)

// profiled gives a role the flag --cpuprofile, which profiles all of its life.
func profiled(cmd *cobra.Command) {
	path := cmd.Flags().String("cpuprofile", "", "file to write a profile of the processor time to at the end, for go tool pprof")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if *path == "" {
			return run(cmd, args)
		}
		file, err := os.Create(*path)
		if err != nil {
			return usageError{fmt.Errorf("--cpuprofile: %w", err)}
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		return run(cmd, args)
	}
}
