"""The name of this process, for people who look for its log."""

from __future__ import annotations

import os
import socket
from functools import cache


def worker_name() -> str:
    """Return host:process, which tells an operator whose log to read."""
    return f"{_host()}:{os.getpid()}"


@cache
def _host() -> str:
    return socket.gethostname()
