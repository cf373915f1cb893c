"""What the commands share: translated help, exit codes in the help, stopping at a signal."""

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
    exit_codes: Promise = _("Exit codes: 0 done; 1 not done, the reason is on stderr; 2 unreadable arguments.")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser; argparse itself cannot take lazy texts."""
        self.help = str(self.about)
        return super().create_parser(prog_name, subcommand, epilog=str(self.exit_codes), **kwargs)


def positive_int(text: str) -> int:
    """Return the number in an argument. Raises ArgumentTypeError for none, and for less than 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(gettext("must be a whole number of at least 1"))
    return number


class Stop:
    """Says whether SIGTERM or SIGINT came, and sleeps no longer than until then."""

    def __init__(self) -> None:
        self._asked = False
        # A queue whose put() may interrupt a get() of the same thread; an Event's lock may not be taken by a handler.
        self._wake: SimpleQueue[None] = SimpleQueue()

    def asked(self) -> bool:
        """Tell whether to stop."""
        return self._asked

    def ask(self, *_signal: object) -> None:
        """Stop soon; what is in flight is finished first."""
        self._asked = True
        self._wake.put(None)

    def wait(self, seconds: float) -> None:
        """Sleep, unless asked to stop."""
        try:
            self._wake.get(timeout=seconds)
        except Empty:
            pass


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Give a Stop that the two signals set while the block runs."""
    stop = Stop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():  # there Python takes no handlers
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
