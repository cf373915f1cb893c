"""Tests of the development tools. They need neither Django nor servers that run already."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Return as soon as the condition holds.

    Args:
        condition: what is waited for.
        seconds: how long.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
