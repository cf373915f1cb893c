"""Failures that the project itself must correct, such as its mail settings or its clock: logged as errors.

They pause no channel, because the owner of the endpoint could not do anything.
"""

from __future__ import annotations

import logging
import threading
import time

from notifications.providers.base import SendResult

logger = logging.getLogger("notifications.providers")

REPORT_INTERVAL_SECONDS = 600.0
"""Time until the same fault is logged again. A wrong setting fails every message."""

_reported: dict[tuple[str, str], float] = {}
"""When each pair of channel and error code was logged, in seconds of the monotonic clock."""
_lock = threading.Lock()


def report_project_fault(channel: str, record_id: int, result: SendResult) -> None:
    """Log a failure that the project must correct, at most once per interval, channel and code in this process.

    Args:
        channel: Name of the channel.
        record_id: Id of the record.
        result: The result of the attempt.
    """
    now, pair = time.monotonic(), (channel, result.error_code)
    with _lock:
        if now - _reported.get(pair, float("-inf")) < REPORT_INTERVAL_SECONDS:
            return
        _reported[pair] = now
    logger.error(
        "%s fails until this installation is corrected: %s",
        channel,
        result.error_message,
        extra={"event": "provider.project_fault", "channel": channel, "code": pair[1], "record_id": record_id},
    )


def reset_reported_faults() -> None:
    """Forget which faults were logged. For tests."""
    with _lock:
        _reported.clear()
