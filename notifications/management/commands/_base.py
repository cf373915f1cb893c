"""The base of the commands: translated help, exit codes in the help, and a clean stop at a signal."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _


class Command(BaseCommand):
    """A command whose help is in the operator's language and ends with the exit codes."""

    about: Promise
    exit_codes: Promise = _("Exit codes: 0 success; 1 failure, the reason is on stderr; 2 invalid arguments.")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser. Lazy texts are translated here, because argparse does not take them."""
        self.help = str(self.about)
        return super().create_parser(prog_name, subcommand, epilog=str(self.exit_codes), **kwargs)


def positive_int(text: str) -> int:
    """Return the number in an argument.

    Args:
        text: The argument.

    Raises:
        ArgumentTypeError: The text is not a whole number of at least 1.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(gettext("must be a whole number of at least 1"))
    return number


class ProcessesCommand(Command):
    """A command that runs until a signal, in one process or in several that it forks."""

    exit_codes = _(
        "Exit codes: 0 stopped by a signal; 1 no process could be started, or one had to be killed when it was to "
        "stop; 2 invalid arguments."
    )
    requires_system_checks = ()  # they would load the admin and the API into each process

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the option that both have."""
        parser.add_argument(
            "--processes", type=positive_int, default=1, metavar="N", help=gettext("Number of processes (%(default)s).")
        )


class StopSignal:
    """Stores whether a stop was requested by SIGTERM or SIGINT, and ends a sleep early."""

    def __init__(self) -> None:
        self._requested = False
        # A signal handler may call put() while get() of the same thread runs. An Event would need its lock.
        self._wake: SimpleQueue[None] = SimpleQueue()

    def requested(self) -> bool:
        """Return whether the command must stop."""
        return self._requested

    def request(self, *_signal: object) -> None:
        """Request the stop. Sends that are in flight are finished first."""
        self._requested = True
        self._wake.put(None)

    def wait(self, seconds: float) -> None:
        """Sleep for some seconds, or until the stop is requested."""
        try:
            self._wake.get(timeout=seconds)
        except Empty:
            pass


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """Yield a StopSignal that SIGTERM and SIGINT set while the block runs."""
    stop = StopSignal()
    numbers = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield stop
        return
    before = {number: signal.signal(number, stop.request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
