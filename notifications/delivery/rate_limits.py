"""Rate limits of endpoints, shared by all workers through Redis.

A record over the limit is released and becomes due later. It spends no attempt and no send slot.
"""

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

from notifications.broker.redis_client import RedisGateway, RedisUnavailable
from notifications.delivery.claim import Claimed
from notifications.providers.base import Provider
from notifications.security.secrets import SecretUnreadable

LIMIT_DIVISOR_WITHOUT_REDIS = 5
"""Without Redis each process uses a fifth of every limit, at least one send, because other processes may send too."""
MIN_DELAY_SECONDS = 0.05


class RateLimits:
    """Decides which claimed records may be sent now.

    Args:
        gateway: The Redis client; None if the engine works without Redis.
        limits: Limits by channel, such as "5/second;100/minute". All parts of a limit apply. Other channels have none.
    """

    def __init__(self, gateway: RedisGateway | None, limits: Mapping[str, str]) -> None:
        self.gateway = gateway
        self.windows = {channel: parse_many(text) for channel, text in limits.items() if text}

    def delays(self, rows: Sequence[Claimed]) -> dict[int, float]:
        """Find the records that may not be sent yet. The other records are counted as sent.

        The delays of one endpoint differ by what its limit allows, so that its records do not become due together.

        Args:
            rows: The claimed records.

        Returns:
            Seconds to wait, by record id.
        """
        delays: dict[int, float] = {}
        refused: dict[str, tuple[float, int]] = {}
        for row in rows:
            windows = self.windows.get(row.channel)
            if not windows or row.endpoint is None or row.exhausted:
                continue
            key = _endpoint_key(row)
            if key not in refused:
                delay = self._count_send(windows, key)
                if delay <= 0:
                    continue
                refused[key] = (delay, 0)
            delay, place = refused[key]
            delays[row.record_id] = delay + place * max(window.get_expiry() / window.amount for window in windows)
            refused[key] = (delay, place + 1)
        return delays

    def _count_send(self, windows: Iterable[RateLimitItem], key: str) -> float:
        """Count one send and return 0, or return the seconds until one is allowed."""
        try:
            if self.gateway is None:
                raise RedisUnavailable
            prefix = self.gateway.key("rate")
            return self.gateway.run(lambda client: _hit(_redis_limiter(client.connection_pool, prefix), windows, key))
        except RedisUnavailable:
            lower = [
                type(item)(math.ceil(item.amount / LIMIT_DIVISOR_WITHOUT_REDIS), item.multiples) for item in windows
            ]
            return _hit(_local_limiter(), lower, key)


def effective_limits(providers: Mapping[str, Provider], configured: Mapping[str, str]) -> dict[str, str]:
    """Return the rate limits by channel.

    Args:
        providers: Providers by channel. Each may have its own `limits`.
        configured: The setting RATE_LIMITS by channel. It overrides the provider's limit; an empty text removes it.
    """
    own = {channel: cast(str, getattr(provider, "limits", "")) for channel, provider in providers.items()}
    return own | dict(configured)


@lru_cache(maxsize=4)
def _redis_limiter(pool: redis.ConnectionPool, prefix: str) -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(RedisStorage("redis://", pool, key_prefix=prefix))


@lru_cache(maxsize=1)
def _local_limiter() -> MovingWindowRateLimiter:
    """Return the limiter of this process. It is kept between engines, so that the sends of earlier drains count too."""
    return MovingWindowRateLimiter(MemoryStorage())


def _hit(limiter: MovingWindowRateLimiter, windows: Iterable[RateLimitItem], key: str) -> float:
    # The longest window first: if it refuses, the send is not counted in the others.
    for window in sorted(windows, key=lambda item: -item.get_expiry()):
        if not limiter.hit(window, key):
            return max(limiter.get_window_stats(window, key).reset_time - time.time(), MIN_DELAY_SECONDS)
    return 0.0


def _endpoint_key(row: Claimed) -> str:
    """Return a key for the endpoint, which several users may share. It does not reveal the address."""
    try:
        address = row.endpoint.webhook_url.reveal() if row.endpoint else ""
    except SecretUnreadable:
        address = ""
    return hashlib.sha256(f"{row.channel}|{address or row.channel_id}".encode()).hexdigest()[:32]
