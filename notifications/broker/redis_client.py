"""Redis with a short temper: bounded calls, and silence for a while after one that failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import redis
from django.core.signals import setting_changed
from django.dispatch import receiver
from redis.backoff import NoBackoff
from redis.retry import Retry

from notifications.conf import service_options

logger = logging.getLogger("notifications.redis")
T = TypeVar("T")


class RedisAway(Exception):
    """Redis is not configured, did not answer in time, or did not lately."""


class RedisGateway:
    """Runs commands and remembers for `silence` seconds that Redis did not answer.

    url: redis:// address; empty means there is none. timeout: bound on connecting and on each answer, in seconds.
    prefix: what every key of this app begins with; `key()` puts it there.
    """

    def __init__(self, url: str, *, timeout: float, silence: float, prefix: str = "") -> None:
        self.prefix = prefix
        self.silence = silence
        self._away_until = 0.0
        self._away = False
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        if url:
            # No retries of the client's own: a lock is asked for again by whoever needs it.
            self._client = redis.Redis.from_url(
                url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
            )

    def key(self, name: str) -> str:
        """Return the Redis key of a name such as "nudge"."""
        return self.prefix + name

    def run(self, command: Callable[[redis.Redis], T]) -> T:
        """Return what `command` returns. Raises RedisAway instead of any Redis error."""
        if self._client is None or time.monotonic() < self._away_until:
            raise RedisAway
        try:
            result = command(self._client)
        except redis.RedisError as error:
            self._note(type(error).__name__)
            raise RedisAway from None
        self._note("")
        return result

    def _note(self, trouble: str) -> None:
        """Log the change between there and away once, not every call."""
        with self._lock:
            if trouble:
                self._away_until = time.monotonic() + self.silence
            if bool(trouble) == self._away:
                return
            self._away = bool(trouble)
        if trouble:
            logger.warning(
                "redis is away, going on without locks and nudges: %s", trouble, extra={"event": "redis.away"}
            )
        else:
            logger.info("redis is back", extra={"event": "redis.back"})


@lru_cache(maxsize=1)
def gateway() -> RedisGateway:
    """Return the one gateway of this process, for the configured Redis."""
    options = service_options()
    return RedisGateway(
        options.redis_url,
        timeout=options.redis_timeout,
        silence=options.redis_silence,
        prefix=options.redis_prefix,
    )


@receiver(setting_changed)
def _forget_gateway(*, setting: str, **kwargs: object) -> None:
    if setting == "NOTIFICATIONS":
        gateway.cache_clear()
