"""The name of this process, so that people find its log."""

from __future__ import annotations

import os
import socket
from functools import cache


def worker_name() -> str:
    """Return `host:process id`, which identifies the log to read."""
    return f"{_host()}:{os.getpid()}"


@cache
def _host() -> str:
    return socket.gethostname()
