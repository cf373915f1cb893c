"""When to try again."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from notifications.conf import ServiceOptions

CROWD_BEFORE, CROWD_AFTER = 60.0, 120.0
"""Seconds around each full and half hour in which everybody sends. Feishu asks custom bots to keep away."""


def retry_delay(attempt_count: int, options: ServiceOptions) -> float:
    """Return the seconds to wait after a failed attempt: base, 2 base, 4 base ... up to the maximum.

    attempt_count: attempts made so far, the failed one included; less than 1 counts as 1.
    The rule is the Go service's, without its 64-bit overflow.
    """
    doublings = min(max(attempt_count, 1) - 1, 1023)  # 2.0 ** 1024 does not exist; no maximum reaches 2.0 ** 1023
    return min(options.retry_base_delay * 2.0**doublings, options.retry_max_delay)


def add_jitter(delay: float, options: ServiceOptions, *, now: datetime | None = None) -> float:
    """Return the delay with the configured jitter.

    now: given where the provider is crowded at full and half hours; the result then keeps away from them.
    """
    delay += delay * options.retry_jitter * random.random()  # noqa: S311  spreads load, guards nothing
    if now is not None:
        due = now + timedelta(seconds=delay)
        after = (due.minute % 30) * 60 + due.second + due.microsecond / 1e6
        ahead = 1800 - after
        if after < CROWD_AFTER:
            delay += CROWD_AFTER - after + CROWD_AFTER * random.random()  # noqa: S311
        elif ahead <= CROWD_BEFORE:
            delay += ahead + CROWD_AFTER + CROWD_AFTER * random.random()  # noqa: S311
    return delay
