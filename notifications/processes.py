"""One parent that forks processes, restarts those that end, and stops them all.

The parent has loaded the code, so its children share that memory. They must not share connections or threads: the
parent opens none, and each child starts its own after the fork.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger("notifications.processes")

STOP_TIMEOUT_SECONDS = 40.0
"""How long the processes may take to stop before they are killed."""
STEADY_SECONDS = 10.0
"""A process that ends sooner after its start counts as failed. The next one starts after a delay."""
FIRST_DELAY_SECONDS = 1.0
"""Delay after the first failure in a row. It doubles after each further one."""
MAX_DELAY_SECONDS = 30.0
MAX_FAILURES = 3
"""After so many failures in a row of each process, the parent gives up."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD, signal.SIGUSR1)


@dataclass(slots=True)
class _Process:
    """One of the processes: a number that stays, and the child that has it now."""

    number: int
    pid: int = 0
    """0: none runs."""
    started_at: float = 0.0
    """Monotonic clock, as `restart_at`."""
    restart_at: float = 0.0
    failures: int = 0
    """How many in a row ended within STEADY_SECONDS of their start."""


def run_processes(count: int, run: Callable[[int], int], *, stop_timeout: float = STOP_TIMEOUT_SECONDS) -> int:
    """Fork processes and watch them until a signal stops them all.

    SIGTERM, SIGHUP and the first SIGINT stop them warm: each child gets SIGTERM. SIGQUIT and a second SIGINT stop them
    cold: each child gets SIGQUIT. SIGUSR1 is passed on. Children stay in the process group of the parent, so they may
    get a signal twice, for example from a terminal. If the parent is killed, each child stops as after SIGTERM, and
    kills itself after `stop_timeout`.

    Args:
        count: How many processes. A single one is not forked: `run` is called in this process.
        run: What a process does. It gets the number of the process, from 1, and returns its exit status.
        stop_timeout: Seconds between the signal and SIGKILL.

    Returns:
        The exit status: 0 if all stopped cleanly; 1 if one had to be killed or failed while it stopped, or if no
        process could be started. A child does not return: it ends with SystemExit.
    """
    if count == 1:
        return run(1)
    return _Parent(count, run, stop_timeout).run()


class _Parent:
    def __init__(self, count: int, run: Callable[[int], int], stop_timeout: float) -> None:
        self._processes = [_Process(number) for number in range(1, count + 1)]
        self._run = run
        self._stop_timeout = stop_timeout
        self._stopping = False
        self._kill_at: float | None = None
        """When the processes that have not stopped yet are killed, on the monotonic clock."""
        self._status = 0
        self._pid = os.getpid()
        # Only this process holds the end for writing. Its end closes it, and each child notices that.
        self._alive_read, self._alive_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> int:
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _ignore)  # not SIG_IGN, which children would inherit and which reaps by itself
        _prepare_fork()
        logger.info(
            "starting %d processes", len(self._processes), extra={"event": "processes.started", "pid": self._pid}
        )
        while self._start_due():
            self._wait()
            for received in self._received():
                self._handle(received)
            self._reap()
            self._kill_late()
        logger.info("stopped", extra={"event": "processes.stopped", "exit_status": self._status})
        return self._status

    def _start_due(self) -> bool:
        """Start what is due. Return whether there is anything left to wait for."""
        running = [process for process in self._processes if process.pid]
        if self._stopping:
            return bool(running)
        if not running and all(process.failures >= MAX_FAILURES for process in self._processes):
            logger.critical("no process can be started, giving up", extra={"event": "processes.gave_up"})
            self._status = 1
            return False
        for process in self._processes:
            if not process.pid and time.monotonic() >= process.restart_at:
                self._start(process)
        return True

    def _start(self, process: _Process) -> None:
        process.started_at = time.monotonic()
        # A signal between the fork and the child's own handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:  # out of processes or memory
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._plan_restart(process, f"fork failed: {error.strerror}")
            return
        if not pid:
            self._become_child()
            try:
                status = self._run(process.number)
            except Exception:
                logger.exception("process %d failed", process.number, extra={"event": "processes.failed"})
                status = 1
            sys.exit(status)
        process.pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for descriptor in (self._alive_write, self._wake_read, self._wake_write):
            os.close(descriptor)
        arguments = (self._alive_read, self._stop_timeout)
        threading.Thread(target=_end_with_parent, args=arguments, name="parent-watch", daemon=True).start()

    def _wait(self) -> None:
        times = [process.restart_at for process in self._processes if not process.pid and not self._stopping]
        if self._kill_at is not None:
            times.append(self._kill_at)
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        select.select([self._wake_read], [], [], timeout)

    def _received(self) -> bytes:
        try:
            return os.read(self._wake_read, 4096)
        except BlockingIOError:
            return b""

    def _handle(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self._send(signal.SIGUSR1)
        if number not in _STOP_SIGNALS:
            return
        cold = number == signal.SIGQUIT or (number == signal.SIGINT and self._stopping)
        if not self._stopping:
            self._stopping = True
            self._kill_at = time.monotonic() + self._stop_timeout
            logger.info("stopping after %s", signal.Signals(number).name, extra={"event": "processes.stopping"})
        self._send(signal.SIGQUIT if cold else signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.pid:  # not reaped yet, so the number is not another process's
                os.kill(process.pid, number)

    def _reap(self) -> None:
        """Note the children that have ended. As process 1 of a container, also reap what others left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for process in self._processes:
                if process.pid == pid:
                    self._ended(process, os.waitstatus_to_exitcode(status))

    def _ended(self, process: _Process, code: int) -> None:
        reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        fields = {"number": process.number, "ended_pid": process.pid, "exit_code": code}
        process.pid = 0
        if not self._stopping:
            self._plan_restart(process, reason, **fields)
        elif code not in (0, -signal.SIGTERM):  # a child that has not begun has no handler yet
            self._status = 1
            logger.error(
                "process %d: %s while stopping", process.number, reason, extra={"event": "processes.ended", **fields}
            )

    def _plan_restart(self, process: _Process, reason: str, **fields: int) -> None:
        now = time.monotonic()
        process.failures = process.failures + 1 if now - process.started_at < STEADY_SECONDS else 0
        delay = min(FIRST_DELAY_SECONDS * 2 ** (process.failures - 1), MAX_DELAY_SECONDS) if process.failures else 0.0
        process.restart_at = now + delay
        logger.error(
            "process %d ended: %s; the next one starts in %g s",
            process.number,
            reason,
            delay,
            extra={"event": "processes.ended", "restart_in_s": delay, **fields},
        )

    def _kill_late(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            logger.error("processes did not stop in time, killing them", extra={"event": "processes.killed"})
            self._send(signal.SIGKILL)


def _ignore(*_signal: object) -> None:
    """Let the signal wake the parent's loop."""


def _prepare_fork() -> None:
    """Keep the objects of the parent on pages that the children never write to for garbage collection."""
    if others := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
        logger.warning(
            "threads run at the fork, and will not run in the processes: %s",
            ", ".join(others),
            extra={"event": "processes.threads"},
        )
    gc.collect()
    gc.freeze()


def _end_with_parent(alive_read: int, stop_timeout: float) -> None:
    """Stop this process once its parent has ended. Not PR_SET_PDEATHSIG, which only Linux has."""
    while os.read(alive_read, 1):
        pass
    logger.error("the parent has ended, stopping", extra={"event": "processes.orphaned"})
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(stop_timeout)
    os.kill(os.getpid(), signal.SIGKILL)
