// Command gateway is Costgate: the cost gateway for Azure OpenAI. Without a
// subcommand it serves, as an Azure Functions custom handler or standalone.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) //nolint:gocritic // stop only matters to a process that goes on
}
