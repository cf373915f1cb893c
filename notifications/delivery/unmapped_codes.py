"""Vendor error codes that no rule maps: each is reported once, so that a rule can be added."""

from __future__ import annotations

import logging
import threading

from notifications.providers.base import SendResult
from notifications.signals import unmapped_answer

logger = logging.getLogger("notifications.providers")

MAX_REPORTED_CODES = 1000
"""Pairs of channel and code that one process reports. An endpoint that returns a new code each time must not fill the
log."""

_reported: set[tuple[str, str]] = set()
_lock = threading.Lock()


def report_unmapped_code(channel: str, record_id: int, result: SendResult) -> None:
    """Write a log line and send the signal `unmapped_answer`, once per channel and code in this process.

    Call this function from a thread that may use the database, because receivers of the signal may use it.

    Args:
        channel: Name of the channel.
        record_id: Id of the record.
        result: The result with the unmapped code.
    """
    with _lock:
        pair = (channel, result.unmapped)
        if pair in _reported or len(_reported) >= MAX_REPORTED_CODES:
            return
        _reported.add(pair)
    logger.warning(
        "%s returned an error code that no rule maps: %s",
        channel,
        result.unmapped,
        extra={"event": "provider.unmapped", "channel": channel, "code": result.unmapped, "record_id": record_id},
    )
    arguments = {"channel": channel, "code": result.unmapped, "message": result.error_message, "record_id": record_id}
    for receiver, failure in unmapped_answer.send_robust(SendResult, **arguments):
        if isinstance(failure, Exception):
            logger.warning(
                "a receiver of unmapped_answer failed: %s",
                type(failure).__name__,
                extra={"event": "signal.failed", "receiver": getattr(receiver, "__qualname__", repr(receiver))},
            )


def reset_reported_codes() -> None:
    """Forget which codes were reported. For tests."""
    with _lock:
        _reported.clear()
