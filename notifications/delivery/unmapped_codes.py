"""Codes that no provider's table has: said once, so that somebody adds a row."""

from __future__ import annotations

import logging
import threading

from notifications.providers.base import SendResult
from notifications.signals import unmapped_answer

logger = logging.getLogger("notifications.providers")

MAX_REPORTED_CODES = 1000
"""Pairs of channel and code that are reported; an endpoint that makes up a new code each time must not fill the log."""

_told: set[tuple[str, str]] = set()
_lock = threading.Lock()


def report_unmapped_code(channel: str, record_id: int, result: SendResult) -> None:
    """Log and signal that this answer has a code we have no meaning for, unless this process has done so before.

    Call it from a thread that may use the database: receivers may want to.
    """
    with _lock:
        pair = (channel, result.unmapped)
        if pair in _told or len(_told) >= MAX_REPORTED_CODES:
            return
        _told.add(pair)
    logger.warning(
        "%s answered with a code we have no meaning for: %s",
        channel,
        result.unmapped,
        extra={"event": "provider.unmapped", "channel": channel, "code": result.unmapped, "record_id": record_id},
    )
    facts = {"channel": channel, "code": result.unmapped, "message": result.error_message, "record_id": record_id}
    for receiver, failure in unmapped_answer.send_robust(SendResult, **facts):
        if isinstance(failure, Exception):
            logger.warning(
                "a receiver of unmapped_answer failed: %s",
                type(failure).__name__,
                extra={"event": "signal.failed", "receiver": getattr(receiver, "__qualname__", repr(receiver))},
            )


def reset_reported_codes() -> None:
    """Report every code anew, for tests."""
    with _lock:
        _told.clear()
