"""How late the loop of this process came back to the network."""

from __future__ import annotations

import threading

_lock = threading.Lock()
_largest: list[float] = []


def note_lag(seconds: float) -> None:
    """Note a time for which exchanges in flight were not looked at.

    Args:
        seconds: The time.
    """
    with _lock:
        if not _largest or seconds > _largest[0]:
            _largest[:] = [seconds]


def take_largest_lag() -> float | None:
    """Return the largest lag in seconds since the last call; None if nothing was in flight."""
    with _lock:
        lag = _largest[0] if _largest else None
        _largest.clear()
    return lag
