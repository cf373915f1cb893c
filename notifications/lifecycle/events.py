"""Stores an event with each change of a record that somebody listens for, in the transaction of the change."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from django.db import connection, transaction

from notifications.models import NotificationRecord
from notifications.signals import RECORD_SIGNALS
from notifications.sql import load_sql

stored = threading.Event()
"""Set when this process has committed events. Its relay then need not wait for its next look."""

_WRITE = load_sql("notifications.lifecycle", "write_events")


def heard_signals() -> frozenset[str]:
    """Return the names of the signals that have a receiver in this process. No other place decides what is stored.

    A process that settles must know the receivers. Connected in `AppConfig.ready`, they are the same in all processes.
    """
    return frozenset(
        # Without receivers this is one look at a list for each signal: most projects have none.
        [
            name
            for name, signal in RECORD_SIGNALS.items()
            if signal.receivers and signal.has_listeners(NotificationRecord)
        ]
    )


def write_events(changes: Iterable[tuple[int, str]]) -> None:
    """Store one event for each change. Call it in the transaction of the changes, after them.

    Args:
        changes: Id of a record and name of a signal. The event holds what the record holds now. Names that nobody in
            this process listens for are left out.
    """
    if not (heard := heard_signals()):
        return
    rows = [(record_id, name) for record_id, name in changes if name in heard]
    if not rows:
        return
    ids, names = zip(*rows, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, {"ids": list(ids), "names": list(names)})
    transaction.on_commit(stored.set, robust=True)  # before, the relay would not see them
