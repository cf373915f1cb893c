"""Wait for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60.0
"""Seconds a condition may take to become true; generous, because it runs out only on a failure."""
T = TypeVar("T")


class WaitTimeoutError(AssertionError):
    """A condition did not become true in time."""


def wait_until(condition: Callable[[], T], description: str | Callable[[], str], seconds: float = PATIENCE) -> T:
    """Return what `condition` returns as soon as it is truthy.

    Raises:
        WaitTimeoutError: it never was; the message has the description.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"never came true: {description if isinstance(description, str) else description()}")
        time.sleep(0.05)
    return result
