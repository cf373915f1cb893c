"""Lets a process under libfaketime sleep: it refuses the call that Python's sleep makes (EINVAL), whatever the time."""

from __future__ import annotations

import os
import threading
import time
from typing import SupportsIndex


def install() -> None:
    """Let time.sleep() wait for an event that never comes, where the clock is not the machine's own."""
    if "libfaketime" in os.environ.get("LD_PRELOAD", ""):
        time.sleep = _sleep


def _sleep(seconds: float | SupportsIndex) -> None:
    threading.Event().wait(float(seconds))
