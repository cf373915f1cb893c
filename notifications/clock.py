"""Time: a clock for tests, and the clock of PostgreSQL, which decides everything else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.db import connection

Clock = Callable[[], datetime]
"""A clock for tests. Without one PostgreSQL's own decides, so that no machine's clock can make a row due."""


def database_now() -> datetime:
    """Return the time by PostgreSQL's clock, which stamps the records."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now
