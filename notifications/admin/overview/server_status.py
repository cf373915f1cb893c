"""How PostgreSQL is: response time, connections, and whether it accepts writes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.db import connection

from notifications.sql import load_sql

MAX_MILLISECONDS = 250.0
"""A simple query that takes longer shows that PostgreSQL is overloaded."""
MAX_CONNECTION_SHARE = 0.9
"""With more of its connections in use, PostgreSQL will soon refuse new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlStatus:
    """How PostgreSQL is."""

    milliseconds: float
    """Time of a simple query."""
    connections: int
    max_connections: int
    read_only: bool

    @property
    def nearly_full(self) -> bool:
        """Whether it will soon refuse connections."""
        return self.connections > MAX_CONNECTION_SHARE * self.max_connections

    @property
    def slow(self) -> bool:
        """Whether a simple query took longer than MAX_MILLISECONDS."""
        return self.milliseconds > MAX_MILLISECONDS


def measure_postgresql() -> PostgresqlStatus:
    """Run a simple query and return its duration and result.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    started = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(load_sql("notifications.admin.overview", "measure_postgresql"))
        connections, max_connections, read_only = cursor.fetchone()
    return PostgresqlStatus(
        milliseconds=(time.perf_counter() - started) * 1000,
        connections=connections,
        max_connections=max_connections,
        read_only=read_only,
    )
