"""Delivers due notifications in the thread and the database connection of the test."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from notifications.delivery.engine import RetryResult

DRAIN_BUDGET_SECONDS = 3600.0
"""Longest time of one call. A worker stops after DRAIN_BUDGET; a test needs everything that is due."""


def deliver_notifications(*, at: datetime | None = None) -> RetryResult:
    """Deliver the due notifications as a worker does.

    It works in a test with `django_db` and in one with `django_db(transaction=True)`: the engine uses the database
    connection of this thread, and its sender threads use none. It takes no Redis locks. Receivers of the signals are
    called before it returns.

    Args:
        at: The time that counts as now, with a time zone. A later time makes retries and scheduled notifications due.

    Returns:
        The numbers of attempts by result.

    Raises:
        RuntimeError: Called inside `transaction.atomic()`. Outside of tests, a worker would not see the request before
            the transaction commits.
        ValueError: `at` has no time zone.
    """
    from django.db import transaction  # Django may not be set up when this module is imported

    from notifications.conf import service_options
    from notifications.delivery.engine import Engine
    from notifications.lifecycle.relay import relay_events

    if at is not None and at.utcoffset() is None:
        raise ValueError("at must have a time zone")
    try:
        with transaction.atomic(durable=True):
            pass
    except RuntimeError:
        raise RuntimeError(
            "deliver_notifications() was called inside transaction.atomic(). A worker does not see a request before its"
            " transaction commits. Call it after the block."
        ) from None
    options = dataclasses.replace(service_options(), drain_budget=DRAIN_BUDGET_SECONDS)
    result = Engine(options=options, clock=(lambda: at) if at else None).deliver_due()
    relay_events()
    return result
