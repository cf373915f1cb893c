"""Redis locks, one per `channel|dedupe_key`. They keep two processes from sending one record; the claim decides."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from notifications.broker.redis_client import RedisGateway, RedisUnavailable
from notifications.conf import ServiceOptions
from notifications.content.text import trim

POLL_INTERVAL_SECONDS = 0.05
"""Time between two tries to take a key that another process holds. A lock is held for about one HTTP request."""

_ACQUIRE = """
local granted = {}
for index, key in ipairs(KEYS) do
  if redis.call('set', key, ARGV[1], 'NX', 'PX', ARGV[2]) then
    granted[#granted + 1] = index
  end
end
return granted
"""

_RELEASE = """
local released = 0
for _, key in ipairs(KEYS) do
  if redis.call('get', key) == ARGV[1] then
    released = released + redis.call('del', key)
  end
end
return released
"""


def lock_key(channel: str, dedupe_key: str) -> str:
    """Return the key that a record is locked under. It is the Go service's, so that both services can run together."""
    return f"{trim(channel)}|{trim(dedupe_key)}"


def lock_ttl(options: ServiceOptions) -> float:
    """Return the seconds that a Redis lock lives. It outlives the lease, so that the holder is visible at its end."""
    return options.lease + min(5.0, options.lease)


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """Locks that one call of `acquire` took."""

    token: str
    """Random value of these locks in Redis. Nobody else can release them."""
    keys: frozenset[str]


class Locks:
    """Takes and releases locks. Without Redis every key is granted, and only the claim guards.

    Args:
        gateway: The Redis client.
        ttl: Seconds after which Redis deletes a lock whose holder was lost.
    """

    def __init__(self, gateway: RedisGateway, *, ttl: float) -> None:
        self.gateway = gateway
        self.ttl = ttl

    def redis_key(self, key: str) -> str:
        """Return the name of a lock in Redis."""
        return self.gateway.key(f"lock:{key}")

    def acquire(self, keys: Iterable[str]) -> HeldLocks:
        """Take those of the keys that are free, in one round trip.

        Args:
            keys: Keys as returned by `lock_key`.

        Returns:
            The locks that were taken, possibly none.
        """
        wanted = list(dict.fromkeys(keys))
        token = uuid.uuid4().hex
        names = [self.redis_key(key) for key in wanted]
        try:
            granted = self.gateway.run(
                lambda client: client.eval(_ACQUIRE, len(names), *names, token, int(self.ttl * 1000))
            )
        except RedisUnavailable:
            return HeldLocks(token, frozenset(wanted))
        return HeldLocks(token, frozenset(wanted[index - 1] for index in granted))

    def wait_for(self, key: str, *, timeout: float) -> HeldLocks | None:
        """Take one key, and try again while another process holds it.

        Args:
            key: The key.
            timeout: Seconds to try.

        Returns:
            The lock, or None if the time ran out.
        """
        deadline = time.monotonic() + timeout
        while not (held := self.acquire([key])).keys:
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_INTERVAL_SECONDS)
        return held

    def release(self, held: HeldLocks, keys: Iterable[str] | None = None) -> None:
        """Release locks that are still ours. Never raises: without Redis they end by their time to live.

        Args:
            held: The locks.
            keys: Release only these keys of them; all by default.
        """
        names = [self.redis_key(key) for key in (held.keys if keys is None else keys) if key in held.keys]
        if not names:
            return
        try:
            self.gateway.run(lambda client: client.eval(_RELEASE, len(names), *names, held.token))
        except RedisUnavailable:
            pass
