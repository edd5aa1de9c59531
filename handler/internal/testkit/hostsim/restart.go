package hostsim

import (
	"context"
	"errors"
	"fmt"
)

// Errors of a handler that does not run.
var (
	ErrDead    = errors.New("the handler exited with code 0 and is never started again")
	ErrExited  = errors.New("the handler has exited")
	ErrTooMany = errors.New("the handler exited for the third time: the host stops")
)

const exitRestart = 200 // an exit code that asks for a restart and is no error

// launch starts a process and watches over it. The lock is held.
func (h *Host) launch() error {
	p, err := h.spawn()
	if err != nil {
		return fmt.Errorf("the handler cannot be started: %w", err)
	}
	h.process = p
	h.background.Go(func() { h.watch(p) })
	return nil
}

// watch waits until the process answers, then for its end.
func (h *Host) watch(p *process) {
	p.trouble = h.await(p)
	if p.trouble == nil {
		close(p.ready)
	} else {
		_ = p.cmd.Process.Kill() // one that does not listen
	}
	<-p.ended
	h.transport.CloseIdleConnections()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer close(p.judged)
	if p.retired || h.ended != nil {
		return
	}
	h.exits = append(h.exits, p.code)
	if h.options.NoRestart || p.code == 0 {
		return
	}
	if p.code != exitRestart && h.tooMany() {
		h.endLocked(errors.Join(ErrTooMany, p.why()))
		return
	}
	if err := h.launch(); err != nil {
		h.endLocked(err)
	}
}

// tooMany counts an exit.
func (h *Host) tooMany() bool {
	now := h.options.Now()
	if n := len(h.failed); n > 0 && now.Sub(h.failed[n-1]) > h.options.ErrorWindow {
		h.failed = nil
	}
	h.failed = append(h.failed, now)
	return len(h.failed) >= errorsMax
}

// handler is the process that calls go to, once it answers. A process that has
// ended and has no successor is given out all the same: calls of it fail.
func (h *Host) handler(ctx context.Context) (*process, error) {
	late, cancel := context.WithTimeout(ctx, h.options.InvokeWait)
	defer cancel()
	for {
		p := h.current()
		select {
		case <-p.ready:
			return p, nil
		case <-h.done:
			return nil, h.Err()
		case <-p.judged:
			if h.current() == p {
				return p, errors.Join(p.why(), h.Err())
			}
		case <-late.Done():
			if ctx.Err() == nil {
				h.end(fmt.Errorf("no handler after %v: the host stops", h.options.InvokeWait))
			}
			return nil, late.Err()
		}
	}
}

func (h *Host) current() *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process
}

// replace ends a process as the host does and starts another. It does nothing
// if the process has ended, or has been replaced.
func (h *Host) replace(p *process) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return h.ended
	}
	if p != h.process || p.retired {
		return nil
	}
	p.retire()
	<-p.ended
	return h.launch()
}

// Kill ends the handler by SIGKILL, as something outside the host would, and
// waits until the host has drawn its conclusions: it has started another, or has
// stopped.
func (h *Host) Kill() {
	p := h.current()
	_ = p.cmd.Process.Kill()
	<-p.judged
}

// Restart starts the handler again, and kills it before if it runs. It fails
// with ErrDead if it had exited with 0.
func (h *Host) Restart() error {
	p := h.current()
	select {
	case <-p.ended:
		<-p.judged
		if p.code == 0 {
			return ErrDead
		}
		h.mu.Lock()
		err := h.ended
		if err == nil && h.process == p {
			err = h.launch()
		}
		h.mu.Unlock()
		if err != nil {
			return err
		}
	default:
		if err := h.replace(p); err != nil {
			return err
		}
	}
	_, err := h.handler(context.Background())
	return err
}

// Exits are the exit codes of the handlers that ended without the host's doing,
// in order; -1 is a signal.
func (h *Host) Exits() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]int(nil), h.exits...)
}

// Pid is the handler's process id.
func (h *Host) Pid() int { return h.current().cmd.Process.Pid }

// HandlerURL is where the handler itself listens: what is sent there comes
// without the host.
func (h *Host) HandlerURL() string { return "http://127.0.0.1:" + h.current().port }
