"""The requests that reached the sandbox, in memory and on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One request that reached the sandbox, recorded before it was answered."""

    at: float
    """Unix time in seconds."""
    key: str
    """Last part of the path."""
    notification_id: int | None
    """`notification_id` of the body, if it has one."""
    answer: str
    """The answer word."""
    accepted: bool
    """True if the answer means that the receiver accepted the message."""
    body: Any
    """The parsed JSON, or None if it was not JSON."""
    headers: dict[str, str]
    """Headers as sent."""


def select(
    deliveries: Iterable[Delivery],
    *,
    key: str | None = None,
    notification_id: int | None = None,
    accepted: bool | None = None,
) -> list[Delivery]:
    """Return the deliveries that match all given conditions.

    Args:
        deliveries: The deliveries to filter.
        key: Only deliveries to this key.
        notification_id: Only deliveries of this notification.
        accepted: Only accepted (True) or refused (False) deliveries.
    """
    return [
        delivery
        for delivery in deliveries
        if (key is None or delivery.key == key)
        and (notification_id is None or delivery.notification_id == notification_id)
        and (accepted is None or delivery.accepted == accepted)
    ]


def read_journal(path: Path) -> list[Delivery]:
    """Return the deliveries in a journal.

    Args:
        path: The file. It may not exist yet, and its last line may be incomplete.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Delivery(**json.loads(line)) for line in lines]


class Journal:
    """A file with one JSON line for each delivery. Several threads share one fsync.

    Args:
        path: The file. New lines are appended.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._written = 0
        self._synced = 0
        self._lock = threading.Lock()

    def append(self, delivery: Delivery) -> int:
        """Write one line. Only one thread at a time may call this.

        Args:
            delivery: The delivery.

        Returns:
            The line's number, for `sync`.
        """
        line = json.dumps(dataclasses.asdict(delivery), ensure_ascii=False)
        self._file.write(line.encode("utf-8", errors="backslashreplace") + b"\n")
        self._file.flush()
        self._written += 1
        return self._written

    def sync(self, number: int) -> None:
        """Return when the line is on disk.

        Args:
            number: The line's number from `append`.
        """
        with self._lock:
            if self._synced < number:
                written = self._written
                os.fsync(self._file.fileno())
                self._synced = written

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
