"""Redis locks, one per `channel|dedupe_key`. They keep processes off each other's keys; the claim decides."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from notifications.broker.redis_client import RedisAway, RedisGateway
from notifications.content.text import trim

POLL = 0.05
"""Seconds between two looks at a held key; locks are held for about one HTTP request."""

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
    """Return the key both are locked under; the Go service's, so both services may run side by side."""
    return f"{trim(channel)}|{trim(dedupe_key)}"


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """Locks we hold: release() gives back exactly these, if they are still ours."""

    token: str
    keys: frozenset[str]


class Locks:
    """Takes and gives back locks.

    ttl: seconds after which a lock ends by itself, should its holder vanish.
    Without Redis every key is granted: the claim alone then guards.
    """

    def __init__(self, gateway: RedisGateway, *, ttl: float) -> None:
        self.gateway = gateway
        self.ttl = ttl

    def name(self, key: str) -> str:
        """Return the name of a lock in Redis."""
        return self.gateway.key(f"lock:{key}")

    def acquire(self, keys: Iterable[str]) -> HeldLocks:
        """Take as many of the keys as are free, in one round trip; `HeldLocks.keys` tells which."""
        wanted = list(dict.fromkeys(keys))
        token = uuid.uuid4().hex
        names = [self.name(key) for key in wanted]
        try:
            granted = self.gateway.run(
                lambda client: client.eval(_ACQUIRE, len(names), *names, token, int(self.ttl * 1000))
            )
        except RedisAway:
            return HeldLocks(token, frozenset(wanted))
        return HeldLocks(token, frozenset(wanted[index - 1] for index in granted))

    def wait_for(self, key: str, *, timeout: float) -> HeldLocks | None:
        """Take one key, asking again for up to `timeout` seconds; None if its holder kept it."""
        deadline = time.monotonic() + timeout
        while not (held := self.acquire([key])).keys:
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL)
        return held

    def release(self, held: HeldLocks, keys: Iterable[str] | None = None) -> None:
        """Give back `keys` (all that are held by default), each only if it is still ours. Never raises."""
        names = [self.name(key) for key in (held.keys if keys is None else keys) if key in held.keys]
        if not names:
            return
        try:
            self.gateway.run(lambda client: client.eval(_RELEASE, len(names), *names, held.token))
        except RedisAway:
            pass  # they end by themselves
