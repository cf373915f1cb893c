"""Settle: store the results of attempts, and the attempts whose worker was lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from notifications.clock import Clock
from notifications.content.json_encoding import encode_json
from notifications.content.sanitize import clean_json, clean_text
from notifications.delivery.claim import Claimed
from notifications.delivery.settlement import MAX_ERROR_LENGTH, Settlement
from notifications.lifecycle.events import heard_signals, write_events
from notifications.ordering.key_order import letting_next_go, order_keys
from notifications.providers.base import MAY_HAVE_ARRIVED
from notifications.sql import load_sql
from notifications.states import Cause, ErrorCode, Status
from notifications.telemetry import counters
from notifications.telemetry.process import worker_name

logger = logging.getLogger("notifications.delivery")

RETRY_INTERVAL_SECONDS = 0.5
"""Time between two tries to store results while PostgreSQL is unavailable."""

SETTLE = load_sql("notifications.delivery", "settle", count_measurements=counters.COUNT_MEASUREMENTS)
_RECORD_LOST_ATTEMPTS = load_sql(
    "notifications.delivery", "record_lost_attempts", count_measurements=counters.COUNT_MEASUREMENTS
)

LATE_FAILURE = "the attempt had been recorded as lost before this result was stored"
LATE_SUCCESS = f"{LATE_FAILURE}, so {MAY_HAVE_ARRIVED} more than once"


def settle_batch(group: Sequence[Settlement], clock: Clock | None) -> set[int]:
    """Store a group of results in one statement: attempt rows, records and counters.

    If records of the group have an order key, the next records of these keys become due in the same transaction. Where
    somebody listens, the events of the results are stored in it, too.

    A failure is stored in its record only under its own lease. A success is stored even if its lease is lost, because a
    proven send must stop further sends. The attempt row is stored in both cases. If the attempt was recorded as lost
    meanwhile, its error keeps that.

    Args:
        group: The settlements, each of another record.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        Ids of the records that were changed by their result. The other records were settled by another worker.

    Raises:
        DatabaseError: Nothing was stored, or the connection was lost before the answer arrived.
    """
    parameters: dict[str, Any] = {
        "now": clock() if clock else None,
        "worker": worker_name(),
        "late_failure": LATE_FAILURE,
        "late_success": LATE_SUCCESS,
        "results": encode_json([_result_row(item) for item in group]).decode(),
        **counters.count_parameters(),
    }
    keys, heard = order_keys(item.row for item in group), heard_signals()
    with (
        letting_next_go(keys, clock),
        transaction.atomic() if heard else nullcontext(),
        connection.cursor() as cursor,
    ):
        cursor.execute(SETTLE, parameters)
        settled = {row[0] for row in cursor.fetchall()}
        if heard:
            write_events((item.row.record_id, name) for item, name in _signals(group) if item.row.record_id in settled)
    return settled


def _signals(group: Sequence[Settlement]) -> Iterator[tuple[Settlement, str]]:
    """Yield the settlements that say what became of their record, and the signal that says it."""
    names = {Status.SENT: "delivered", Status.DEAD: "died", Status.SKIPPED: "skipped"}
    for item in group:
        if item.status in names:
            yield item, names[item.status]
        elif item.hold_reason and not item.row.was_held:
            yield item, "held"


def settle_with_retries(group: Sequence[Settlement], clock: Clock | None, *, patience: float) -> set[int] | None:
    """Store results, and try again while PostgreSQL is unavailable.

    If PostgreSQL is away for all processes, nobody can claim these records meanwhile. If only this process is cut off,
    others send them again after the lease and the Redis lock; a result that is stored later than that says so. A result
    that PostgreSQL refuses is stored without the provider's data, so that it blocks neither its record nor the rest of
    the group.

    Args:
        group: The settlements, each of another record.
        clock: Clock of a test; None for PostgreSQL's clock.
        patience: Seconds after which it gives up.

    Returns:
        Ids of the records that took their result; None if the results could not be stored. Such records are sent again
        after their lease.
    """
    deadline = time.monotonic() + patience
    while group:
        try:
            return settle_batch(group, clock)
        except (OperationalError, InterfaceError) as error:
            logger.warning(
                "%d results not stored, trying again: %s",
                len(group),
                type(error).__name__,
                extra={"event": "settle.delayed"},
            )
            if time.monotonic() >= deadline:
                return None
            connection.close()
            time.sleep(RETRY_INTERVAL_SECONDS)
        except DatabaseError:
            if len(group) > 1:
                return set().union(*(settle_with_retries([item], clock, patience=patience) or set() for item in group))
            logger.exception("a result of record %d cannot be stored whole", group[0].row.record_id)
            if group == [group[0].without_provider_data()]:
                return None
            group = [group[0].without_provider_data()]
    return set()


def record_lost_attempts(rows: Iterable[Claimed], clock: Clock | None) -> set[int]:
    """Insert an attempt row with the outcome `lost` for each recovered record, so that the audit has no gap.

    The message of a lost attempt may have arrived. Call this function after the Redis locks have shown that the former
    workers are gone.

    Args:
        rows: Claimed records; only those with the cause `recovery` matter.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        Ids of the records that must not be sent: their former worker was slow, and settled a success after our
        claim.
    """
    lost = [row for row in rows if row.cause == Cause.RECOVERY]
    if not lost:
        return set()
    parameters = {
        "now": clock() if clock else None,
        "code": ErrorCode.LEASE_EXPIRED.value,
        "error": "the lease ended before a result was stored",
        "ids": [row.record_id for row in lost],
        "leases": [row.lease_token for row in lost],
        "rounds": [row.round for row in lost],
        "numbers": [row.attempt_count if row.exhausted else row.attempt_count - 1 for row in lost],
        "causes": [str(_cause_of_lost_attempt(row)) for row in lost],
        **counters.count_parameters(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECORD_LOST_ATTEMPTS, parameters)
        return {row.record_id for row in lost} - {row[0] for row in cursor.fetchall()}


def _cause_of_lost_attempt(row: Claimed) -> Cause:
    """The cause of the lost attempt was not stored, but its number shows whether it was the first send."""
    if row.attempt_count - (not row.exhausted) > 1:
        return Cause.SWEEP
    return Cause.REPLAY if row.round else Cause.EVENT


def _result_row(item: Settlement) -> dict[str, Any]:
    """Return the row of settle.sql's `result`. One JSON document for all rows costs a tenth of one list per column."""
    row, result = item.row, item.result
    payload = result.request_payload
    return {
        "id": row.record_id,
        "message_uid": row.request.message_uid,
        "lease_token": row.lease_token,
        "status": item.status,
        "delay": item.delay,
        "error_code": item.error_code,
        "error": item.error,
        "message_id": clean_text(result.provider_message_id, 191),
        "request": clean_json(row.request.as_payload() if payload is None else payload),
        "response": clean_json(result.response_payload),
        "round": row.round,
        "number": row.attempt_count,
        "cause": row.cause,
        "age": item.age,
        "duration": round(item.duration * 1000),
        "outcome": result.outcome,
        "attempt_code": clean_text(result.error_code, 64),
        "attempt_error": clean_text(result.error_message, MAX_ERROR_LENGTH),
        "http_status": result.http_status,
        "excerpt": clean_text(result.response_excerpt, MAX_ERROR_LENGTH),
        "made": not row.exhausted,
        "channel": row.channel,
        "hold_reason": item.hold_reason,
    }
