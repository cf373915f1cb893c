"""Looks up names for the loop. The system's resolver blocks and takes no time limit, so other threads ask it."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

AddressInfo = tuple[int, int, int, str, Any]
"""One result of `socket.getaddrinfo`."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a step of an exchange waits for: the addresses of a host."""

    host: str
    port: int
    expires: float
    """When the wait ends without success, in seconds of the monotonic clock."""


class Resolver:
    """Asks the system's resolver in threads. Several tasks that need one name at the same time share one question.

    A thread whose task no longer waits goes on, and its answer is dropped.

    Args:
        answered: Function that is called, in another thread, when an answer has arrived.
    """

    def __init__(self, answered: Callable[[], object]) -> None:
        self._answered = answered
        self._askers: dict[tuple[str, int], list[Any]] = {}
        self._answers: deque[tuple[tuple[str, int], list[AddressInfo] | Exception]] = deque()

    def ask(self, lookup: Lookup, task: Any) -> None:
        """Begin a lookup for a task.

        Args:
            lookup: The name.
            task: Whom `take_answers` names.
        """
        question = (lookup.host, lookup.port)
        askers = self._askers.setdefault(question, [])
        askers.append(task)
        if len(askers) == 1:
            threading.Thread(target=self._ask_system, args=question, name="lookup", daemon=True).start()

    def forget(self, task: Any) -> None:
        """Note that a task no longer waits."""
        for question, askers in list(self._askers.items()):
            if task in askers:
                askers.remove(task)
            if not askers:
                del self._askers[question]

    def take_answers(self) -> Iterator[tuple[Any, list[AddressInfo] | Exception]]:
        """Yield the tasks whose answer has arrived, each with the addresses or the error."""
        while self._answers:
            question, answer = self._answers.popleft()
            for task in self._askers.pop(question, ()):
                yield task, answer

    def _ask_system(self, host: str, port: int) -> None:
        try:
            answer: list[AddressInfo] | Exception = [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except Exception as error:
            answer = error
        self._answers.append(((host, port), answer))
        self._answered()


def numeric_address(host: str, port: int) -> AddressInfo | None:
    """Return the address that a host is, without asking anybody; None if it is a name.

    Args:
        host: A host as it stands in an address, without brackets.
        port: The port.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    if address.scope_id:
        return None
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
