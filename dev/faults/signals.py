"""Listens for the signals of notifications: `FAULT_SIGNALS=file` appends a line to the file for each call."""

from __future__ import annotations

import os
from typing import Any

from notifications.signals import RECORD_SIGNALS, RecordSignal


def install(path: str) -> None:
    """Connect a receiver to all signals.

    Args:
        path: The file; empty to connect nothing.
    """
    if not path:
        return

    def append(signal: RecordSignal, record_id: int, event_id: str, **kwargs: Any) -> None:
        # One write: lines of several processes do not mix, and one that was written survives the process.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{record_id} {signal.name} {event_id}\n".encode())
        finally:
            os.close(file)

    for signal in RECORD_SIGNALS.values():
        signal.connect(append, weak=False, dispatch_uid="faults")
