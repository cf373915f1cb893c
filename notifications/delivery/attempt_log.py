"""The log line of each attempt."""

from __future__ import annotations

import logging

from notifications.delivery.project_faults import report_project_fault
from notifications.delivery.settlement import Settlement
from notifications.delivery.unmapped_codes import report_unmapped_code
from notifications.telemetry.process import worker_name

logger = logging.getLogger("notifications.attempts")


def log_attempt(item: Settlement, *, stored: bool) -> None:
    """Write the log line of an attempt, with every fact and no secret.

    An error code that no rule maps, and a fault of the project, get further lines.

    Args:
        item: The settlement of the attempt.
        stored: Whether the record took the result. False if its lease was lost or PostgreSQL was unavailable.
    """
    row, result = item.row, item.result
    fields = {
        "event": "delivery.attempted",
        "record_id": row.record_id,
        "channel": row.channel,
        "user_id": row.user_id,
        "dedupe_key": row.dedupe_key,
        "trace_id": row.trace_id,
        "priority": row.priority,
        "cause": str(row.cause),
        "round": row.round,
        "attempt": row.attempt_count,
        "max_attempts": row.max_attempts,
        "outcome": str(result.outcome),
        "status": str(item.status),
        "settled": stored,
        "error_code": item.error_code,
        "error": item.error,
        "http_status": result.http_status,
        "duration_ms": round(item.duration * 1000),
        "retry_in_s": item.delay,
        "worker": worker_name(),
    }
    logger.info("delivery.attempted record=%d status=%s", row.record_id, item.status, extra=fields)
    if result.unmapped:
        report_unmapped_code(row.channel, row.record_id, result)
    if result.project_at_fault:
        report_project_fault(row.channel, row.record_id, result)
