"""Timeouts for PostgreSQL that also work when the server hangs, or disappears without closing the connection."""

from __future__ import annotations

import select
import time

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, STATUS_SETUP, connection, set_wait_callback


def bound_waits(*, connect: float, statement: float) -> None:
    """Make every wait of this process for PostgreSQL fail with OperationalError after some time.

    libpq has no such timeout: its caller would wait forever for a server that accepts bytes and never answers.

    Args:
        connect: Seconds for connecting.
        statement: Seconds for any other wait. Longer than the server's own statement_timeout, whose error message is
            better.
    """

    def wait(waiting: connection) -> None:
        deadline = time.monotonic() + (connect if waiting.status == STATUS_SETUP else statement)
        while (state := waiting.poll()) != POLL_OK:
            ready = select.poll()
            ready.register(waiting.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
            if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise psycopg2.OperationalError("PostgreSQL did not answer in time")

    set_wait_callback(wait)
