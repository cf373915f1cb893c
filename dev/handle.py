"""One program that was started from a Procfile."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

import psutil

from dev import records

TERMINATE_SECONDS = 10.0


class Handle:
    """One running entry: a program that leads a process group of its own."""

    def __init__(self, label: str, process: subprocess.Popen[bytes], log_path: Path, directory: Path) -> None:
        self.label = label
        self.log_path = log_path
        self._process = process
        self._directory = directory

    @property
    def pid(self) -> int:
        """The program's own process id."""
        return self._process.pid

    @property
    def children(self) -> list[int]:
        """Process ids of the processes that the program has forked; empty if it has ended."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children()]
        except psutil.NoSuchProcess:
            return []

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What this instance has printed so far, standard output and error together."""
        return self.log_path.read_text(errors="replace")

    def wait(self, timeout: float) -> int:
        """Wait for the program to end by itself.

        Args:
            timeout: seconds.

        Returns:
            Its exit status; minus the signal's number if one ended it.

        Raises:
            TimeoutError: it still runs.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{self.label} still runs after {timeout} s; see {self.log_path}") from error

    def terminate(self, timeout: float = TERMINATE_SECONDS) -> int:
        """Ask the program to end (SIGTERM); kill what is left of its group afterwards.

        Args:
            timeout: seconds it may take before it is killed.

        Returns:
            Its exit status; minus the signal's number if one ended it.
        """
        self.ask_to_end()
        return self.finish(timeout)

    def ask_to_end(self) -> None:
        """Send SIGTERM and do not wait."""
        # To the program alone, as a service manager does it: gunicorn and celery tell their children themselves.
        self._process.send_signal(signal.SIGTERM)

    def finish(self, timeout: float) -> int:
        """Give the program time to end, then kill what is left of its group.

        Args:
            timeout: seconds.

        Returns:
            Its exit status; minus the signal's number if one ended it.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return self.kill()

    def kill(self) -> int:
        """Kill the program and its whole process group (SIGKILL), and wait until they are gone.

        Returns:
            Its exit status; minus the signal's number if one ended it.
        """
        family = records.stop_recorded(self._directory, self.label)
        status = self._process.wait(records.GRACE_SECONDS)
        records.wait_gone(family, records.GRACE_SECONDS)
        records.forget(self._directory, self.label)
        return status
