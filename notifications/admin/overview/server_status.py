"""Whether what we rest on answers: PostgreSQL, Redis, and who of ours was heard of."""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.db import connection

from notifications.broker.redis_client import RedisUnavailable, gateway
from notifications.conf import service_options

_POSTGRES = """
SELECT (SELECT sum(numbackends) FROM pg_stat_database)::int, current_setting('max_connections')::int,
       pg_is_in_recovery()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """What PostgreSQL says of itself."""

    milliseconds: float
    connections: int
    allowed: int
    read_only: bool

    @property
    def crowded(self) -> bool:
        """Whether it will soon refuse connections."""
        return self.connections > 0.9 * self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """Whether Redis answers; `milliseconds` is None if it does not."""

    configured: bool
    milliseconds: float | None = None

    @property
    def away(self) -> bool:
        """Whether it should answer and does not."""
        return self.configured and self.milliseconds is None


def ask_postgres() -> Postgres:
    """Ask PostgreSQL, and take the time."""
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(_POSTGRES)
        connections, allowed, read_only = cursor.fetchone()
    took = (time.perf_counter() - began) * 1000
    return Postgres(milliseconds=took, connections=connections, allowed=allowed, read_only=read_only)


def ask_redis() -> Redis:
    """Ask Redis, and take the time; bounded by REDIS_TIMEOUT."""
    if not service_options().redis_url:
        return Redis(configured=False)
    began = time.perf_counter()
    try:
        gateway().run(lambda client: client.ping())
    except RedisUnavailable:
        return Redis(configured=True)
    return Redis(configured=True, milliseconds=(time.perf_counter() - began) * 1000)
