"""The time: PostgreSQL's clock decides it, unless a test supplies another clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Expression, Value
from django.db.models.functions import Now
from django.utils import timezone

Clock = Callable[[], datetime]
"""A clock for tests. Without one PostgreSQL's clock decides, so that no machine's clock can make a record due."""


OFFSET_LIFETIME_SECONDS = 60.0
"""How long a measured difference between this machine's clock and PostgreSQL's clock is used."""

_offset = timedelta()
"""What this machine's clock lacks to PostgreSQL's."""
_measured_at = float("-inf")
"""When `_offset` was measured, in seconds of the monotonic clock."""


def current_time(clock: Clock | None) -> Expression:
    """Return the time as an expression for the ORM: PostgreSQL's `statement_timestamp()` or the time of `clock`."""
    return Value(clock()) if clock else Now()


def database_now() -> datetime:
    """Return the time by PostgreSQL's clock, which stamps the records."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def page_now() -> datetime:
    """Return the time by PostgreSQL's clock for what a page says about stored times: "due now", "3 minutes ago".

    It needs one query a minute. Between two of them, this machine's clock counts from PostgreSQL's time.
    """
    global _offset, _measured_at
    if time.monotonic() - _measured_at >= OFFSET_LIFETIME_SECONDS:
        _offset = database_now() - timezone.now()
        _measured_at = time.monotonic()
    return timezone.now() + _offset
