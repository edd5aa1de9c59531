//go:build !linux

package hostsim

import "os/exec"

// dieWithParent has no means elsewhere: Close ends the handler, and the gateway
// watches its parent.
func dieWithParent(*exec.Cmd) {}
