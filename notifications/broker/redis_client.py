"""The Redis client with short timeouts. After a failure, calls are skipped for REDIS_SILENCE seconds."""

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
from notifications.conf.redis_address import normalize_redis_address
from notifications.exceptions import NotificationError

logger = logging.getLogger("notifications.redis")
T = TypeVar("T")


class RedisUnavailable(NotificationError):
    """Redis is not configured, did not answer in time, or failed within the last REDIS_SILENCE seconds."""


class RedisAddressError(NotificationError, ValueError):
    """NOTIFICATIONS["REDIS_URL"] is no address that the client can use."""


def open_client(url: str, *, timeout: float) -> redis.Redis:
    """Return a client of redis-py. It connects at its first command.

    Args:
        url: The address, in the words of redis-py or of Celery.
        timeout: Timeout of the connection and of each answer, in seconds.

    Raises:
        RedisAddressError: The client cannot use the address. The text does not contain it.
    """
    try:
        address = normalize_redis_address(url)
    except ValueError as error:
        raise RedisAddressError(str(error)) from None
    try:
        # Retries of the client could run a command twice, if only its answer was lost.
        client = redis.Redis.from_url(
            address, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
        client.connection_pool.make_connection()  # takes the parameters of the address; does not connect
    except (redis.RedisError, TypeError, ValueError) as error:
        raise RedisAddressError(f"has a parameter that the client refuses ({type(error).__name__})") from None
    return client


class RedisGateway:
    """Runs Redis commands with a timeout. After a failure, commands are skipped for some seconds.

    Args:
        url: A redis:// address; empty if the project has no Redis.
        timeout: Timeout of the connection and of each answer, in seconds.
        silence: Seconds without commands after a failure.
        prefix: Prefix of every key; `key()` adds it.
    """

    def __init__(self, url: str, *, timeout: float, silence: float, prefix: str = "") -> None:
        self.prefix = prefix
        self.silence = silence
        self._away_until = 0.0
        self._away = False
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        if url:
            try:
                self._client = open_client(url, timeout=timeout)
            except RedisAddressError as error:
                # No caller of a request may fail by it, so Redis counts as away. Check E015 names the setting.
                logger.error("REDIS_URL %s", error, extra={"event": "redis.address"})

    def key(self, name: str) -> str:
        """Return the Redis key of a name such as "nudge"."""
        return self.prefix + name

    def run(self, command: Callable[[redis.Redis], T]) -> T:
        """Run a command.

        Args:
            command: Takes the client of redis-py and returns a result.

        Returns:
            The result of the command.

        Raises:
            RedisUnavailable: The command failed or was skipped. No other Redis error is raised.
        """
        if self._client is None or time.monotonic() < self._away_until:
            raise RedisUnavailable
        try:
            result = command(self._client)
        except redis.RedisError as error:
            self._record_outcome(type(error).__name__)
            raise RedisUnavailable from None
        self._record_outcome("")
        return result

    def start(self, *command: str) -> Callable[[], None]:
        """Send a command without waiting for its answer, over a connection that it has for itself until then.

        Args:
            command: The words of the command.

        Returns:
            Function that receives the answer. It must be called, and never raises: a failure is logged.

        Raises:
            RedisUnavailable: The command was not sent.
        """
        if self._client is None or time.monotonic() < self._away_until:
            raise RedisUnavailable
        pool = self._client.connection_pool
        connection = None
        try:
            connection = pool.get_connection()
            connection.send_command(*command)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            if connection:
                pool.release(connection)
            self._record_outcome(type(error).__name__)
            raise RedisUnavailable from None

        def receive() -> None:
            failure = ""
            try:
                connection.read_response()
            except redis.RedisError as error:
                connection.disconnect()  # type: ignore[no-untyped-call]
                failure = type(error).__name__
            finally:
                pool.release(connection)
            self._record_outcome(failure)

        return receive

    def _record_outcome(self, failure: str) -> None:
        """Log a change between available and unavailable once, not at every call. An empty `failure` is a success."""
        with self._lock:
            if failure:
                self._away_until = time.monotonic() + self.silence
            if bool(failure) == self._away:
                return
            self._away = bool(failure)
        if failure:
            logger.warning(
                "redis is unavailable, continuing without locks and nudges: %s", failure, extra={"event": "redis.away"}
            )
        else:
            logger.info("redis is available again", extra={"event": "redis.back"})


@lru_cache(maxsize=1)
def gateway() -> RedisGateway:
    """Return the gateway of this process to the configured Redis."""
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
