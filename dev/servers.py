"""PostgreSQL and Valkey as child processes, from the programs that two PyPI packages bring."""

from __future__ import annotations

import abc
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import psutil

from dev import records
from dev.ports import free_port

START_SECONDS = 30.0
PORT_TRIES = 5


class ServiceError(RuntimeError):
    """A server did not start or is not running."""


class PortTakenError(ServiceError):
    """Another program listens on the port."""


class Server(abc.ABC):
    """A server on 127.0.0.1 that can be started, stopped, killed, and started again on the same port and data.

    Args:
        directory: where its data and log go; a private_directory(), so that the server never outlives this process.
    """

    name: ClassVar[str]
    ready_line: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    orphan_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / self.name
        self.log_path = self.home / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The address that clients take."""

    @abc.abstractmethod
    def command(self, port: int) -> list[str]:
        """Build the command line that runs the server in the foreground.

        Args:
            port: where it listens.
        """

    @abc.abstractmethod
    def answers(self, port: int) -> bool:
        """Tell whether a client can use the server.

        Args:
            port: where it should listen.
        """

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            ServiceError: it is not running.
        """
        if self._process is None:
            raise ServiceError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until a client can use it. After the first start the port stays the same.

        Raises:
            ServiceError: It runs already, or it did not start. The message has the end of its log.
        """
        if self.running:
            raise ServiceError(f"{self.name} is already running")
        self.home.mkdir(parents=True, exist_ok=True)
        self.prepare()
        for remaining_tries in reversed(range(PORT_TRIES)):
            port = self.port or free_port()
            try:
                self._start_on(port)
            except PortTakenError:
                if self.port or not remaining_tries:
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """Stop the server cleanly; nothing happens if it is not running."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(records.GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._ended()

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, and wait until they are gone."""
        if self._process is None:
            return
        family: list[psutil.Process] = []
        if self.running:
            server = psutil.Process(self._process.pid)
            server.suspend()  # it must not start another process while we list them
            family = server.children(recursive=True)
        self._process.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(records.GRACE_SECONDS)
        records.wait_gone(family, records.GRACE_SECONDS)
        self._ended()

    def prepare(self) -> None:  # noqa: B027  most need nothing
        """Make what the server needs before it starts, if it is not there yet."""

    def spawn(self, name: str, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program that Ctrl-C does not reach, and record it for the keeper.

        Args:
            name: what to record it as.
            command: the program and its arguments.
            log: takes what it prints.
        """
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=self.home,
            env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
            **self.identity(),
        )
        records.record(self.directory, name, process.pid, stop=self.orphan_signal, group=True)
        return process

    def identity(self) -> dict[str, Any]:
        """Return the user to run as, as options of Popen."""
        return {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start_on(self, port: int) -> None:
        with self.log_path.open("ab") as log:
            begin = log.tell()
            self._process = self.spawn(self.name, self.command(port), log)
        deadline = time.monotonic() + START_SECONDS
        try:
            # The log line first: another server might answer on a port that ours could not bind.
            while not (self.ready_line in (text := self._log(begin)) and self.answers(port)):
                if self._process.poll() is not None:
                    kind = PortTakenError if "Address already in use" in (text := self._log(begin)) else ServiceError
                    raise kind(f"{self.name} ended with status {self._process.returncode}:\n{text[-2000:]}")
                if time.monotonic() > deadline:
                    raise ServiceError(f"{self.name} is not up after {START_SECONDS:.0f} s:\n{text[-2000:]}")
                time.sleep(0.01)
        except Exception:  # an interrupt leaves it on record: waiting could hang on a lock that Popen still holds
            self.kill()
            raise

    def _log(self, begin: int) -> str:
        return self.log_path.read_bytes()[begin:].decode(errors="replace")

    def _ended(self) -> None:
        self._process = None
        records.forget(self.directory, self.name)
