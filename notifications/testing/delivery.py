"""Deliveries on demand, in the test's own thread and database connection."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifications.delivery.engine import RetryResult

LONG = 3600.0
"""Seconds one call may go on: a test wants everything that is due delivered, not a worker's fair share."""


def deliver_notifications(*, at: datetime | None = None) -> RetryResult:
    """Deliver what is due, as a worker would, and return the counts.

    Works in a plain database test, where the test's own transaction is never committed, as well as in a transactional
    one: the engine uses the connection of this thread, and its sender threads use none. Takes no Redis locks.

    at: what counts as now, with a time zone; a later time makes retries and scheduled notifications due.
    Raises RuntimeError inside a transaction.atomic() block of the test: outside of tests nothing would be committed
    yet, so a worker could not see the request either.
    """
    from django.db import transaction  # not before Django is set up

    from notifications.conf import service_options
    from notifications.delivery.engine import Engine

    if at is not None and at.utcoffset() is None:
        raise ValueError("at must have a time zone")
    try:
        with transaction.atomic(durable=True):
            pass
    except RuntimeError:
        raise RuntimeError(
            "deliver_notifications() was called inside transaction.atomic(): a worker sees a request when its"
            " transaction has committed. Call it after the block."
        ) from None
    options = dataclasses.replace(service_options(), drain_budget=LONG)
    return Engine(options=options, clock=(lambda: at) if at else None).deliver_due()
