"""Redis locks. They keep a second process off a record whose lease has ended while its holder lives.

Each claim has a lock, named by its lease token. Whoever takes over an expired lease asks whether the lock of the former
claim is still there. Key locks, one per `channel|dedupe_key`, are the Go service's: an event that is delivered inline
holds the one of its key.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from notifications.broker.redis_client import RedisGateway, RedisUnavailable
from notifications.conf import ServiceOptions
from notifications.content.text import trim

POLL_INTERVAL_SECONDS = 0.05
"""Time between two tries to take a key that another process holds. A lock is held for about one HTTP request."""

_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('del', KEYS[1])
end
return 0
"""


def lock_key(channel: str, dedupe_key: str) -> str:
    """Return the key of a record. It is the Go service's, so that both services can run together."""
    return f"{trim(channel)}|{trim(dedupe_key)}"


def lock_margin(options: ServiceOptions) -> float:
    """Return the seconds that a lock outlives its lease, so that the holder is visible at the end of the lease.

    A lock lasts at most twice as long as its lease. So it ends before the lease of the next claim, and whoever takes
    over a record need not ask for the locks of the claims before the last one (tests/model).
    """
    return min(5.0, options.lease)


def lock_ttl(options: ServiceOptions) -> float:
    """Return the seconds after which a lock ends whose holder does not release it."""
    return options.lease + lock_margin(options)


@dataclass(frozen=True, slots=True)
class KeyLock:
    """The lock of one key."""

    key: str
    token: str
    """Random value of this lock in Redis. Nobody else can release it."""


class Locks:
    """Takes and releases locks. Without Redis every key is granted, no claim is held, and only the claim guards.

    Args:
        gateway: The Redis client.
        ttl: Seconds after which Redis deletes a key lock whose holder was lost.
    """

    def __init__(self, gateway: RedisGateway, *, ttl: float) -> None:
        self.gateway = gateway
        self.ttl = ttl
        self._unanswered: list[Callable[[], None]] = []

    def hold_claim(self, lease_token: str, *, seconds: float) -> None:
        """Lock a claim without waiting for the answer. This cannot fail, because nobody else has its token.

        Redis is told before anything is sent, and whatever its answer is, the records are sent. Call `receive_answers`
        later.

        The lock is not released: it is asked for only while a record carries the token, and it ends by itself.

        Args:
            lease_token: Token of the claim.
            seconds: Time from now until the lock ends.
        """
        milliseconds = max(int(seconds * 1000), 1)
        with contextlib.suppress(RedisUnavailable):
            self._unanswered.append(
                self.gateway.start("SET", self._claim_name(lease_token), "1", "PX", str(milliseconds))
            )

    def receive_answers(self) -> None:
        """Receive the answers of `hold_claim`. Never raises."""
        while self._unanswered:
            self._unanswered.pop()()

    def is_claim_held(self, lease_token: str) -> bool:
        """Return whether the lock of a claim is still there.

        Args:
            lease_token: Token of the claim.
        """
        try:
            return bool(self.gateway.run(lambda client: client.exists(self._claim_name(lease_token))))
        except RedisUnavailable:
            return False

    def acquire(self, key: str) -> KeyLock | None:
        """Take the lock of a key.

        Args:
            key: Key as returned by `lock_key`.

        Returns:
            The lock, or None if another process holds it.
        """
        lock = KeyLock(key, uuid.uuid4().hex)
        try:
            taken = self.gateway.run(
                lambda client: client.set(self._key_name(key), lock.token, nx=True, px=int(self.ttl * 1000))
            )
        except RedisUnavailable:
            return lock
        return lock if taken else None

    def wait_for(self, key: str, *, timeout: float) -> KeyLock | None:
        """Take the lock of a key, and try again while another process holds it.

        Args:
            key: The key.
            timeout: Seconds to try.

        Returns:
            The lock, or None if the time ran out.
        """
        deadline = time.monotonic() + timeout
        while (lock := self.acquire(key)) is None:
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_INTERVAL_SECONDS)
        return lock

    def release(self, lock: KeyLock) -> None:
        """Release a lock if it is still ours. Never raises: without Redis it ends by its time to live.

        Args:
            lock: The lock.
        """
        with contextlib.suppress(RedisUnavailable):
            self.gateway.run(lambda client: client.eval(_RELEASE, 1, self._key_name(lock.key), lock.token))

    def _key_name(self, key: str) -> str:
        return self.gateway.key(f"lock:{key}")

    def _claim_name(self, lease_token: str) -> str:
        return self.gateway.key(f"claim:{lease_token}")
