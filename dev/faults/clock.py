"""Makes `time.sleep()` work under libfaketime, which refuses the system call of Python's sleep (EINVAL)."""

from __future__ import annotations

import os
import threading
import time
from typing import SupportsIndex


def install() -> None:
    """Under libfaketime, replace `time.sleep()` by a wait for an event that is never set."""
    if "libfaketime" in os.environ.get("LD_PRELOAD", ""):
        time.sleep = _sleep


def _sleep(seconds: float | SupportsIndex) -> None:
    threading.Event().wait(float(seconds))
