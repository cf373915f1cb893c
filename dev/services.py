"""PostgreSQL and Valkey for one run: ``python -m dev.services run -- COMMAND ARGUMENT...``.

DATABASE_URL and REDIS_URL are used where they are set. A missing server is started, and stopped when the command or
this process has ended, also after SIGKILL.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from dev import records
from dev.keeper import private_directory, sweep
from dev.postgres import Postgres
from dev.servers import Server, ServiceError
from dev.valkey import Valkey

__all__ = ["Postgres", "Server", "ServiceError", "Valkey", "private_directory", "run", "services"]

SERVERS: dict[str, type[Server]] = {"REDIS_URL": Valkey, "DATABASE_URL": Postgres}
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def services(environ: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Provide a database and a Redis while the block runs.

    Args:
        environ: where DATABASE_URL and REDIS_URL may be set; by default this process's environment.

    Yields:
        Both addresses, by variable name.

    Raises:
        ServiceError: A server did not start.
    """
    given = _given(os.environ if environ is None else environ)
    if len(given) == len(SERVERS):
        yield given
        return
    with private_directory() as directory, _started(directory, given) as urls:
        yield urls


def run(command: Sequence[str]) -> int:
    """Run a command with DATABASE_URL and REDIS_URL set.

    Args:
        command: the program and its arguments.

    Returns:
        Its exit status: 128 + number if a signal ended it, 127 if there is no such program.
    """
    given = _given(os.environ)
    try:
        if len(given) == len(SERVERS):
            sweep()
            return _exec(command)
        with _Forwarder() as forwarder, private_directory() as directory, _started(directory, given) as urls:
            return forwarder.run(command, os.environ | urls, directory)
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _exec(command: Sequence[str]) -> int:
    try:
        os.execvp(command[0], list(command))  # noqa: S606  the command is the caller's own
    except OSError as error:
        return _not_run(command, error)


def _not_run(command: Sequence[str], error: OSError) -> int:
    sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return 127 if isinstance(error, FileNotFoundError) else 126


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in SERVERS if environ.get(name)}


@contextlib.contextmanager
def _started(directory: Path, given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    with contextlib.ExitStack() as stack:
        urls = dict(given)
        for name, server in SERVERS.items():
            if name not in given:
                urls[name] = stack.enter_context(server(directory)).url
        yield urls


class _Forwarder:
    """Forwards signals to the command, and runs until the command has ended and the servers are stopped.

    A signal that comes before the command has started ends the run as soon as the servers are up; a second one ends it
    at once, and leaves the rest to the keeper. The handler raises nothing: an exception in the midst of waiting for a
    process can leave a lock behind that the cleaning up needs.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._done = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup: the command ignores it too
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], env: Mapping[str, str], directory: Path) -> int:
        """Run the command to its end and return its exit status."""
        if self._early:
            return 128 + self._early[0]
        try:
            self._child = subprocess.Popen(command, env=env)
        except OSError as error:
            return _not_run(command, error)
        if self._early:  # it came while the command started
            self._child.send_signal(self._early[0])
        # The command needs the servers, so the keeper ends it too if this process is killed.
        records.record(directory, "command", self._child.pid, stop=signal.SIGTERM)
        status = self._child.wait()
        self._done = True
        records.forget(directory, "command")
        return 128 - status if status < 0 else status

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
            if len(self._early) > 1:
                os._exit(128 + number)
        elif not self._done and not _sent_by_terminal(number):
            self._child.send_signal(number)


def _sent_by_terminal(number: int) -> bool:
    """Whether this signal most likely came from a key or a hang-up, and so has reached the command already."""
    if number == signal.SIGTERM:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run the command.

    Args:
        arguments: without the program's name; by default those of this process.

    Returns:
        The command's exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m dev.services", description=__doc__)
    actions = parser.add_subparsers(required=True)
    action = actions.add_parser("run", help="run a command with DATABASE_URL and REDIS_URL set")
    action.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ARGUMENT...")
    command = parser.parse_args(arguments).command
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        parser.error("no command given")
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
