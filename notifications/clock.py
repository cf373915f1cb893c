"""The time: PostgreSQL's clock decides it, unless a test supplies another clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.db import connection
from django.db.models import Expression, Value
from django.db.models.functions import Now

Clock = Callable[[], datetime]
"""A clock for tests. Without one PostgreSQL's clock decides, so that no machine's clock can make a record due."""


def current_time(clock: Clock | None) -> Expression:
    """Return the time as an expression for the ORM: PostgreSQL's `statement_timestamp()` or the time of `clock`."""
    return Value(clock()) if clock else Now()


def database_now() -> datetime:
    """Return the time by PostgreSQL's clock, which stamps the records."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now
