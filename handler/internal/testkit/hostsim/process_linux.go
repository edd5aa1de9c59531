package hostsim

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the handler with the simulator, however that ends.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
