"""Wakes a drain through Redis: a nudge reaches a worker that waits in a blocking read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import redis

from notifications.broker.redis_client import RedisAddressError, gateway, open_client
from notifications.conf import service_options

WAKEUPS_KEY = "wakeups"
"""Redis list, without the prefix, with at most one entry. A listener that takes it wakes its drain."""
LISTENERS_KEY = "listeners"
"""Redis key, without the prefix, that exists while a worker listens."""
LISTEN_SECONDS = 1.0
"""How long a listener waits before it says again that it is there, and looks whether its worker stops."""
PRESENCE_SECONDS = 5
"""How long a listener counts as there. A nudge after the last one has died may wait for the sweep."""

# One nudge is on its way at most. It goes to a listener if there is one; else the caller sends a message of Celery.
_NUDGE = """
local listeners = ARGV[2] == '1' and redis.call('EXISTS', KEYS[3]) == 1
if not listeners and ARGV[3] == '0' then
    return 'nobody'
end
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
    return 'queued'
end
if not listeners then
    return 'message'
end
redis.call('LPUSH', KEYS[2], '1')
redis.call('LTRIM', KEYS[2], 0, 0)
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 'woken'
"""


def wake_listener(nudge_key: str, *, ttl: float, listeners: bool, messages: bool) -> bool | None:
    """Wake a listener, unless a nudge is on its way already.

    Args:
        nudge_key: Redis key, without the prefix, that exists while a nudge is on its way.
        ttl: Seconds after which that nudge counts as lost.
        listeners: Whether listeners may be woken.
        messages: Whether the caller sends a message of Celery if there is no listener.

    Returns:
        True if a listener was woken; False if a nudge is on its way, or there is neither a listener nor a message; None
        if the caller must send the message.

    Raises:
        RedisUnavailable: Redis is away.
    """
    keys = [gateway().key(name) for name in (nudge_key, WAKEUPS_KEY, LISTENERS_KEY)]
    answer = gateway().run(
        lambda client: client.eval(_NUDGE, len(keys), *keys, int(ttl * 1000), int(listeners), int(messages))
    )
    return {b"woken": True, b"message": None}.get(answer, False)


def is_redis_listened_to() -> bool:
    """Return whether a worker listens at Redis.

    Raises:
        RedisUnavailable: Redis is away.
    """
    return bool(gateway().run(lambda client: client.exists(gateway().key(LISTENERS_KEY))))


class RedisListener:
    """Listens at Redis. It is used by one thread.

    Args:
        stopping: Event that is set when the worker stops.
        on_wakeup: Function that is called for each wake-up.
    """

    def __init__(self, *, stopping: threading.Event, on_wakeup: Callable[[], object]) -> None:
        self._stopping = stopping
        self._on_wakeup = on_wakeup

    def listen(self) -> bool:
        """Listen until the worker stops. Connect again after each failure.

        Returns:
            False if no Redis is configured.
        """
        client = _listening_client()
        if not client:
            return False
        while not self._stopping.is_set():
            try:
                client.set(gateway().key(LISTENERS_KEY), "1", ex=PRESENCE_SECONDS)
                if client.blpop([gateway().key(WAKEUPS_KEY)], timeout=LISTEN_SECONDS) is None:
                    continue
            except redis.RedisError:
                self._stopping.wait(LISTEN_SECONDS)
                continue
            if self._stopping.is_set():
                self._pass_on(client)
                break
            self._on_wakeup()
        with contextlib.suppress(redis.RedisError):
            client.delete(gateway().key(LISTENERS_KEY))  # other listeners say within a second that they are there
        client.close()
        return True

    def _pass_on(self, client: redis.Redis) -> None:
        with contextlib.suppress(redis.RedisError):
            client.lpush(gateway().key(WAKEUPS_KEY), "1")
            client.expire(gateway().key(WAKEUPS_KEY), PRESENCE_SECONDS)


def _listening_client() -> redis.Redis | None:
    """Return a client whose answers may take LISTEN_SECONDS; None without Redis."""
    options = service_options()
    if not options.redis_url:
        return None
    try:
        return open_client(options.redis_url, timeout=LISTEN_SECONDS + options.redis_timeout + 1.0)
    except RedisAddressError:  # check E015 names the setting
        return None
