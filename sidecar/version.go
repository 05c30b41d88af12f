package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	opaversion "github.com/open-policy-agent/opa/v1/version"
)

// version and commit are set by the linker in a release (-X main.version=…); a build
// without that tells what the Go toolchain recorded.
var (
	version = ""
	commit  = ""
)

func printVersion(_ context.Context, _ []string, std streams) error {
	v, c := buildVersion()
	_, err := fmt.Fprintf(std.stdout, "postern %s\ncommit %s\nopa %s\n%s %s/%s\n", v, c, opaversion.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func buildVersion() (v, c string) {
	v, c = version, commit
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v, c
	}
	if v == "" {
		v = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && c == "" {
			c = s.Value
		}
	}
	if c == "" {
		c = "unknown"
	}
	return v, c
}
