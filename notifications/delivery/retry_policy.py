"""Retry policy: how long a failed message waits for its next attempt."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from notifications.conf import ServiceOptions

HALF_HOUR_SECONDS = 1800
PEAK_BEFORE_SECONDS, PEAK_AFTER_SECONDS = 60.0, 120.0
"""Length of the peak before and after each full and half hour. Feishu asks custom bots not to send in it."""


def retry_delay(attempt_count: int, options: ServiceOptions) -> float:
    """Return the backoff: base, 2 x base, 4 x base ... up to the maximum.

    The rule is the Go service's, without its 64-bit overflow.

    Args:
        attempt_count: Attempts made so far, including the failed one. Less than 1 counts as 1.
        options: For `retry_base_delay` and `retry_max_delay` (seconds).

    Returns:
        Seconds to wait.
    """
    doublings = min(max(attempt_count, 1) - 1, 1023)  # 2.0 ** 1024 does not exist; no maximum reaches 2.0 ** 1023
    return min(options.retry_base_delay * 2.0**doublings, options.retry_max_delay)


def add_jitter(delay: float, options: ServiceOptions, *, peak_clock: datetime | None = None) -> float:
    """Return a delay with random jitter added.

    Args:
        delay: Seconds to wait.
        options: For `retry_jitter`, the largest part of the delay that is added.
        peak_clock: The current time, if the retry must not fall into the peak around a full or half hour; else None.

    Returns:
        Seconds to wait, never less than `delay`.
    """
    delay += delay * options.retry_jitter * random.random()  # noqa: S311  spreads load; not for security
    if peak_clock is not None:
        due = peak_clock + timedelta(seconds=delay)
        since_peak = (due.minute % 30) * 60 + due.second + due.microsecond / 1e6
        until_peak = HALF_HOUR_SECONDS - since_peak
        if since_peak < PEAK_AFTER_SECONDS:
            delay += PEAK_AFTER_SECONDS - since_peak + PEAK_AFTER_SECONDS * random.random()  # noqa: S311
        elif until_peak <= PEAK_BEFORE_SECONDS:
            delay += until_peak + PEAK_AFTER_SECONDS + PEAK_AFTER_SECONDS * random.random()  # noqa: S311
    return delay
