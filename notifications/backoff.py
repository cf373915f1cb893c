"""When to try again."""

from __future__ import annotations

from notifications.conf import ServiceOptions


def retry_delay(attempt_count: int, options: ServiceOptions) -> float:
    """Return the seconds to wait after a failed attempt: base, 2 base, 4 base ... up to the maximum.

    attempt_count: attempts made so far, the failed one included; less than 1 counts as 1.
    The rule is the Go service's, without its 64-bit overflow.
    """
    doublings = min(max(attempt_count, 1) - 1, 1023)  # 2.0 ** 1024 does not exist; no maximum reaches 2.0 ** 1023
    return min(options.retry_base_delay * 2.0**doublings, options.retry_max_delay)
