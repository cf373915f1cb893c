"""Rate limits of endpoints, shared by all workers through Redis.

A record over the limit is released and becomes due later. It spends no attempt and no send slot.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import cast

from limits import RateLimitItem, parse_many

from notifications.broker.redis_client import RedisGateway, RedisUnavailable
from notifications.delivery.claim import Claimed
from notifications.providers.base import Provider
from notifications.security.secrets import SecretUnreadable

LIMIT_DIVISOR_WITHOUT_REDIS = 5
"""Without Redis each process uses a fifth of every limit, at least one send, because other processes may send too."""
MIN_DELAY_SECONDS = 0.05
PLAN_MARGIN_SECONDS = 0.05
"""What a planned window is longer than the limit's, so that a claim that is some milliseconds late delays no other."""
MAX_LOCAL_WINDOWS = 10_000
"""Above this number the windows without a recent send are forgotten."""

# Every window has two lists of times, newest first: of the sends, and of the plan. A record that may not be sent now
# gets a time of the plan, and comes back at that time. Then only the sends count, so that it is not planned again. The
# times are Redis's, because the clocks of workers differ. Sends in the future are from before its clock was set back.
_PLAN_SENDS = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local planned, new, margin = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local windows = {}
for number = 1, #KEYS / 2 do
    local window = {amount = tonumber(ARGV[2 * number + 2]), seconds = tonumber(ARGV[2 * number + 3])}
    for place, kind in ipairs({'sends', 'plan'}) do
        local key, times = KEYS[2 * number - 2 + place], {}
        for _, value in ipairs(redis.call('LRANGE', key, 0, window.amount - 1)) do
            table.insert(times, 1, tonumber(value))
        end
        window[kind] = {key = key, times = times, count = #times}
    end
    local newest = window.sends.times[#window.sends.times]
    if newest and newest > now + 1 then
        redis.call('DEL', window.sends.key, window.plan.key)
        window.sends.times, window.plan.times, window.sends.count, window.plan.count = {}, {}, 0, 0
    end
    windows[number] = window
end
local function earliest(kind, at)
    for _, window in ipairs(windows) do
        local times = window[kind].times
        local oldest = times[#times - window.amount + 1]
        if oldest then
            at = math.max(at, oldest + window.seconds + (kind == 'plan' and margin or 0))
        end
    end
    return at
end
local function add(kind, at)
    for _, window in ipairs(windows) do
        table.insert(window[kind].times, at)
    end
end
local delays, sent = {}, 0
for number = 1, planned + new do
    local at = earliest('sends', now)
    if number > planned then
        at = earliest('plan', at)
        add('plan', at)
    end
    add('sends', at)
    if at <= now then
        sent = sent + 1
    end
    delays[number] = string.format('%.6f', at - now)
end
for _, window in ipairs(windows) do
    for kind, count in pairs({sends = sent, plan = new}) do
        local list = window[kind]
        local latest = now
        for place = list.count + 1, list.count + count do
            latest = list.times[place]
            redis.call('LPUSH', list.key, string.format('%.6f', latest))
        end
        if count > 0 then
            redis.call('LTRIM', list.key, 0, window.amount - 1)
            redis.call('EXPIRE', list.key, math.ceil(latest - now) + window.seconds)
        end
    end
end
return delays
"""


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
        """Find the records that may not be sent yet, and plan when. The other records are counted as sent.

        A record is planned once. When its time has come it is sent, unless other sends were late and fill the window.

        Args:
            rows: The claimed records.

        Returns:
            Seconds to wait, by record id.
        """
        endpoints: dict[str, list[Claimed]] = {}
        for row in rows:
            if row.channel in self.windows and row.endpoint is not None and not row.unsendable and not row.is_test:
                endpoints.setdefault(_endpoint_key(row), []).append(row)
        delays: dict[int, float] = {}
        for key, group in endpoints.items():
            group.sort(key=lambda row: not row.planned)  # a stable sort: otherwise the longest due comes first
            planned = sum(row.planned for row in group)
            seconds = self._plan_sends(self.windows[group[0].channel], key, planned, len(group) - planned)
            delays |= {row.record_id: delay for row, delay in zip(group, seconds, strict=True) if delay}
        return delays

    def _plan_sends(self, windows: Sequence[RateLimitItem], key: str, planned: int, new: int) -> list[float]:
        """Count or plan the sends of an endpoint, and return the seconds until each; 0 for one that may be made now."""
        try:
            if self.gateway is None:
                raise RedisUnavailable
            sizes = [(window.amount, window.get_expiry()) for window in windows]
            names = [
                self.gateway.key(f"rate:{kind}{key}:{amount}:{seconds}")
                for amount, seconds in sizes
                for kind in ("", "plan:")
            ]
            delays = self.gateway.run(
                lambda client: client.eval(
                    _PLAN_SENDS, len(names), *names, planned, new, PLAN_MARGIN_SECONDS, *chain(*sizes)
                )
            )
            return [max(float(delay), MIN_DELAY_SECONDS) if float(delay) else 0.0 for delay in delays]
        except RedisUnavailable:
            return _local_delays(windows, key, planned + new)


def _local_delays(windows: Sequence[RateLimitItem], key: str, count: int) -> list[float]:
    """Return the seconds until each of the sends, by the windows of this process.

    Those that wait differ by what the limit allows, so that the records do not become due together.
    """
    lower = [type(item)(math.ceil(item.amount / LIMIT_DIVISOR_WITHOUT_REDIS), item.multiples) for item in windows]
    step = max(window.get_expiry() / window.amount for window in windows)
    delays: list[float] = []
    refused = 0.0
    for _number in range(count):
        if not refused:
            refused = _local_windows().count_send(lower, key)
            delays.append(refused)
        else:
            delays.append(delays[-1] + step)
    return delays


def effective_limits(providers: Mapping[str, Provider], configured: Mapping[str, str]) -> dict[str, str]:
    """Return the rate limits by channel.

    Args:
        providers: Providers by channel. Each may have its own `limits`.
        configured: The setting RATE_LIMITS by channel. It overrides the provider's limit; an empty text removes it.
    """
    own = {channel: cast(str, getattr(provider, "limits", "")) for channel, provider in providers.items()}
    return own | dict(configured)


class LocalWindows:
    """Windows of this process alone, by its monotonic clock."""

    def __init__(self) -> None:
        self._sends: dict[tuple[str, int, int], deque[float]] = {}
        self._lock = threading.Lock()

    def count_send(self, windows: Iterable[RateLimitItem], key: str) -> float:
        """Count one send and return 0, or return the seconds until one is allowed, as the script in Redis does.

        Args:
            windows: The windows, all of which must allow the send.
            key: The endpoint.
        """
        now, delay, logs = time.monotonic(), 0.0, []
        with self._lock:
            if len(self._sends) > MAX_LOCAL_WINDOWS:
                self._sends = {name: log for name, log in self._sends.items() if log and log[-1] + name[2] > now}
            for window in windows:
                amount, seconds = window.amount, window.get_expiry()
                log = self._sends.setdefault((key, amount, seconds), deque(maxlen=amount))
                logs.append(log)
                if len(log) == amount:
                    delay = max(delay, log[0] + seconds - now)
            if delay <= 0:
                for log in logs:
                    log.append(now)
        return max(delay, MIN_DELAY_SECONDS) if delay > 0 else 0.0


@lru_cache(maxsize=1)
def _local_windows() -> LocalWindows:
    """Return the windows of this process. They outlive an engine, so that the sends of earlier drains count too."""
    return LocalWindows()


def _endpoint_key(row: Claimed) -> str:
    """Return a key for the endpoint, which several users may share. It does not reveal the address."""
    try:
        address = row.endpoint.webhook_url.reveal() if row.endpoint else ""
    except SecretUnreadable:
        address = ""
    return hashlib.sha256(f"{row.channel}|{address or row.channel_id}".encode()).hexdigest()[:32]
