"""Wait for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60.0
"""Seconds a condition may take to come true; generous, since it only ever runs out on a failure."""
T = TypeVar("T")


def wait_until(true: Callable[[], T], what: str | Callable[[], str], patience: float = PATIENCE) -> T:
    """Return what `true` returns as soon as it is truthy. Raises AssertionError naming `what` when it never is."""
    deadline = time.monotonic() + patience
    while not (answer := true()):
        assert time.monotonic() < deadline, f"never came true: {what if isinstance(what, str) else what()}"
        time.sleep(0.05)
    return answer
