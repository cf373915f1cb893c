"""No wait for PostgreSQL is without an end, even when the server hangs or is gone and the network does not say so."""

from __future__ import annotations

import select
import time

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, STATUS_SETUP, connection, set_wait_callback


def bound_waits(*, connect: float, statement: float) -> None:
    """Let every wait of this process for PostgreSQL fail with OperationalError when its time is up.

    libpq has no such bound: a server that accepts bytes and never answers would hold its caller for ever.
    connect, statement: seconds; longer than the server's own statement_timeout, which gives the better message.
    """

    def wait(waiting: connection) -> None:
        deadline = time.monotonic() + (connect if waiting.status == STATUS_SETUP else statement)
        while (state := waiting.poll()) != POLL_OK:
            ready = select.poll()
            ready.register(waiting.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
            if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise psycopg2.OperationalError("PostgreSQL did not answer in time")

    set_wait_callback(wait)
