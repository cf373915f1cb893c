"""The deadline of the blocking request that the current thread makes: its sockets, and the lookup of names."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class RequestDeadline(threading.local):
    """The bound of the request that the current thread makes. Each thread has its own."""

    at: float = 0.0
    """Time of the monotonic clock at which the request must have ended."""

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline, always more than 0.

        Raises:
            TimeoutError: The deadline has passed.
        """
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("deadline of the whole request")
        return remaining


request_deadline = RequestDeadline()


class _DeadlineMixin:
    """A socket that neither sends nor waits for data after the deadline."""

    def sendall(self, *args: Any) -> None:
        # A process that was stopped before this line must not send after it resumes: another worker may have
        # claimed the record meanwhile.
        request_deadline.remaining_seconds()
        super().sendall(*args)  # type: ignore[misc]

    def recv_into(self, *args: Any) -> int:
        # The timeout of a socket bounds one read. This bounds all reads of an answer together.
        remaining = request_deadline.remaining_seconds()
        if remaining < (self.gettimeout() or remaining + 1):  # type: ignore[attr-defined]
            self.settimeout(remaining)  # type: ignore[attr-defined]
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]


class DeadlineSocket(_DeadlineMixin, socket.socket):
    """A plain socket that enforces `request_deadline`."""


class DeadlineSSLSocket(_DeadlineMixin, ssl.SSLSocket):
    """A TLS socket that enforces `request_deadline`."""


def look_up(resolve: Callable[[], T]) -> T:
    """Return what a function returns that asks the system's resolver, within the deadline of the request.

    The resolver has timeouts of its own, often of many seconds, and no limit that a caller could set. So it is asked
    in another thread. After the deadline that thread goes on, and what it found is of use to the next attempt where the
    system or the caller caches it.

    Args:
        resolve: Asks the resolver.

    Raises:
        TimeoutError: The deadline passed before an answer.
        Exception: What `resolve` raised.
    """
    answers: SimpleQueue[tuple[bool, T | Exception]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((True, resolve()))
        except Exception as error:
            answers.put((False, error))

    threading.Thread(target=ask, name="lookup", daemon=True).start()
    try:
        succeeded, answer = answers.get(timeout=request_deadline.remaining_seconds())
    except Empty:
        raise TimeoutError("no answer of the resolver before the deadline") from None
    if isinstance(answer, Exception) and not succeeded:
        raise answer
    return answer  # type: ignore[return-value]  # not an exception, because it succeeded
