"""Rate limits of endpoints, shared by all workers in Redis. What must wait is given back and blocks no slot."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import cast

import redis
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter

from notifications.broker.redis_client import RedisAway, RedisGateway
from notifications.delivery.claim import Claimed
from notifications.providers.base import Provider
from notifications.security.secrets import SecretUnreadable

CAUTION = 5
"""Without Redis each process takes a fifth of every limit, and one at least: others may send as well."""


class RateLimits:
    """Tells which claimed rows may be sent now.

    limits: by channel, such as "5/second;100/minute"; every window holds. A channel that is not there has no limit.
    """

    def __init__(self, gateway: RedisGateway | None, limits: Mapping[str, str]) -> None:
        self.gateway = gateway
        self.windows = {channel: parse_many(text) for channel, text in limits.items() if text}

    def delays(self, rows: Sequence[Claimed]) -> dict[int, float]:
        """Return the seconds to wait, by record id, of the rows that may not be sent yet; the others are counted.

        The waits of one endpoint are apart by what its limit allows, so that its rows do not all come back at once.
        """
        found: dict[int, float] = {}
        refused: dict[str, tuple[float, int]] = {}
        for row in rows:
            windows = self.windows.get(row.channel)
            if not windows or row.endpoint is None or row.exhausted:
                continue
            key = _key(row)
            if key not in refused:
                wait = self._admit(windows, key)
                if wait <= 0:
                    continue
                refused[key] = (wait, 0)
            wait, place = refused[key]
            found[row.record_id] = wait + place * max(window.get_expiry() / window.amount for window in windows)
            refused[key] = (wait, place + 1)
        return found

    def _admit(self, windows: Iterable[RateLimitItem], key: str) -> float:
        """Count one send, or return the seconds until one is allowed."""
        try:
            if self.gateway is None:
                raise RedisAway
            prefix = self.gateway.key("rate")
            return self.gateway.run(lambda client: _hit(_shared(client.connection_pool, prefix), windows, key))
        except RedisAway:
            cautious = [type(item)(math.ceil(item.amount / CAUTION), item.multiples) for item in windows]
            return _hit(_local_limiter(), cautious, key)


def effective_limits(providers: Mapping[str, Provider], configured: Mapping[str, str]) -> dict[str, str]:
    """Return the limits by channel: the provider's own unless RATE_LIMITS says another. A blank one lifts it."""
    own = {channel: cast(str, getattr(provider, "limits", "")) for channel, provider in providers.items()}
    return own | dict(configured)


@lru_cache(maxsize=4)
def _shared(pool: redis.ConnectionPool, prefix: str) -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(RedisStorage("redis://", pool, key_prefix=prefix))


@lru_cache(maxsize=1)
def _local_limiter() -> MovingWindowRateLimiter:
    """Return the one of this process: drains come and go, what they sent counts on."""
    return MovingWindowRateLimiter(MemoryStorage())


def _hit(limiter: MovingWindowRateLimiter, windows: Iterable[RateLimitItem], key: str) -> float:
    # The longest window first: what it refuses is then not counted in the others.
    for window in sorted(windows, key=lambda item: -item.get_expiry()):
        if not limiter.hit(window, key):
            return max(limiter.get_window_stats(window, key).reset_time - time.time(), 0.05)
    return 0.0


def _key(row: Claimed) -> str:
    """Name the endpoint, which several users may share, without telling its address."""
    try:
        address = row.endpoint.webhook_url.reveal() if row.endpoint else ""
    except SecretUnreadable:
        address = ""
    return hashlib.sha256(f"{row.channel}|{address or row.channel_id}".encode()).hexdigest()[:32]
