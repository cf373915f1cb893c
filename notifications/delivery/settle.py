"""Settle: decide what an attempt's result means for its record, and write both down in one statement."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.sanitize import clean_json, clean_text
from notifications.delivery.claim import Claimed
from notifications.delivery.retry_policy import add_jitter, retry_delay
from notifications.delivery.unmapped_codes import report_unmapped_code
from notifications.providers.base import MAY_HAVE_ARRIVED, SendResult
from notifications.states import Cause, ErrorCode, HoldReason, Outcome, Status
from notifications.telemetry import counters as tallies
from notifications.telemetry.process import worker_name

attempt_log = logging.getLogger("notifications.attempts")

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode

HOLD_RECHECK_SECONDS = 3600.0
"""Seconds a record waits for its endpoint before it is looked at again; being let go ends the wait at once."""

MAX_ERROR_LENGTH = 2000
"""Characters of an error text that are kept; the Go service's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How one attempt ended: the claimed row, the result, and the record's next state."""

    row: Claimed
    result: SendResult
    status: Status
    delay: float | None
    """Seconds until the next attempt; None for a final status."""
    error_code: str
    error: str
    duration: float
    """Seconds the attempt took; 0 when nothing was sent."""
    age: float
    """Seconds since it began."""
    hold_reason: str = ""

    def without_provider_data(self) -> Settlement:
        """Return the same without anything foreign: what is left can be stored in any case."""
        plain = SendResult(outcome=self.result.outcome, error_code=self.error_code, error_message=self.error)
        return replace(self, result=plain)


def decide(row: Claimed, result: SendResult, options: ServiceOptions) -> tuple[Status, float | None]:
    """Return the record's next status and the seconds until its next attempt. Pure: no clock, no database."""
    allowed = min(row.max_attempts, result.max_attempts or row.max_attempts)
    match result.outcome:
        case Outcome.SUCCESS:
            return Status.SENT, None
        case Outcome.SKIPPED:
            return Status.SKIPPED, None
        case Outcome.PERMANENT_FAIL if _waits_for_endpoint(row, result):
            return Status.FAILED, HOLD_RECHECK_SECONDS
        case Outcome.TEMPORARY_FAIL if row.attempt_count < allowed:
            asked = min(result.retry_after, options.retry_after_max)
            return Status.FAILED, max(retry_delay(row.attempt_count, options), asked)
        case _:
            return Status.DEAD, None


def _waits_for_endpoint(row: Claimed, result: SendResult) -> bool:
    """The endpoint needs a person, the message does not: it goes out when the channel is resumed (health.py)."""
    config = result.error_code == ErrorCode.PROVIDER_CONFIG
    return config and row.channel_id is not None and row.attempt_count < row.max_attempts


def build_settlement(
    row: Claimed,
    result: SendResult,
    options: ServiceOptions,
    *,
    duration: float,
    age: float,
    crowded: datetime | None = None,
) -> Settlement:
    """Return what to write down for this result. duration, age: seconds the attempt took, and since it began.

    crowded: what time it is, if the provider is crowded at full and half hours.
    """
    status, delay = decide(row, result, options)
    if delay is not None and result.outcome == Outcome.TEMPORARY_FAIL:
        delay = add_jitter(delay, options, now=crowded)
    sent = status == Status.SENT
    return Settlement(
        row=row,
        result=result,
        status=status,
        delay=delay,
        error_code="" if sent else clean_text(result.error_code, 64),
        error="" if sent else clean_text(result.error_message, MAX_ERROR_LENGTH),
        duration=duration,
        age=age,
        hold_reason=HoldReason.CHANNEL_PAUSED if delay and result.outcome == Outcome.PERMANENT_FAIL else "",
    )


def unsendable_result(row: Claimed) -> SendResult:
    """Return the result for a row that may not be sent any more."""
    if row.message_expired:
        text = "it expired before it could be sent"
        if row.cause == Cause.RECOVERY:
            text += "; the worker of the last attempt vanished, and the message may have arrived"
        return SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.EXPIRED, error_message=text)
    if row.cause == Cause.RECOVERY:
        return SendResult(
            outcome=Outcome.PERMANENT_FAIL,
            error_code=ErrorCode.LEASE_EXPIRED,
            error_message=f"the worker of the last attempt vanished; {MAY_HAVE_ARRIVED}",
        )
    return SendResult(
        outcome=Outcome.PERMANENT_FAIL,
        error_code=ErrorCode.ATTEMPTS_EXHAUSTED,
        error_message="no attempts left",
    )


# A failure settles only under its own lease. A success settles even when late: a proven send must stop further ones.
_SETTLE = f"""
WITH result AS (
    SELECT * FROM json_to_recordset(%(results)s) AS result(
        id bigint, lease_token uuid, status text, delay float8, error_code text, error text, message_id text,
        request text, response text, round int, number int, cause text, age float8, duration int, outcome text,
        attempt_code text, attempt_error text, http_status int, excerpt text, made bool, channel text, wait_reason text
    )
), attempt AS (
    INSERT INTO notification_delivery_attempts (
        record_id, round, number, cause, started_at, duration_ms, outcome, error_code, error, http_status,
        response_excerpt, worker
    )
    SELECT record.id, result.round, number, cause,
           COALESCE(%(now)s, statement_timestamp()) - age * interval '1 second', duration, outcome, attempt_code,
           attempt_error, http_status, excerpt, %(worker)s
    FROM result JOIN notification_records AS record USING (id)
    WHERE made
    ON CONFLICT (record_id, round, number) DO UPDATE
        SET cause = EXCLUDED.cause, worker = EXCLUDED.worker, started_at = EXCLUDED.started_at,
            duration_ms = EXCLUDED.duration_ms, outcome = EXCLUDED.outcome, error_code = EXCLUDED.error_code,
            error = EXCLUDED.error, http_status = EXCLUDED.http_status, response_excerpt = EXCLUDED.response_excerpt
        WHERE notification_delivery_attempts.outcome = 'lost'
    RETURNING record_id, outcome, error_code, duration_ms
), taken AS (
    UPDATE notification_records AS record
    SET status = result.status,
        next_attempt_at = COALESCE(%(now)s, statement_timestamp()) + result.delay * interval '1 second',
        lease_token = NULL,
        wait_reason = result.wait_reason,
        last_error_code = result.error_code,
        last_error = result.error,
        provider_message_id = CASE WHEN made THEN result.message_id ELSE record.provider_message_id END,
        provider_request = CASE WHEN made THEN result.request::jsonb ELSE record.provider_request END,
        provider_response = CASE WHEN made THEN result.response::jsonb ELSE record.provider_response END,
        sent_at = CASE WHEN result.status = 'sent' THEN COALESCE(%(now)s, statement_timestamp())
                       ELSE record.sent_at END,
        updated_at = COALESCE(%(now)s, statement_timestamp())
    FROM result
    WHERE record.id = result.id
      AND (record.status = 'sending' AND record.lease_token = result.lease_token
           OR result.status = 'sent' AND record.status <> 'sent')
    RETURNING record.id, record.channel, record.status, record.attempt_count, record.round,
              EXTRACT(epoch FROM record.updated_at - record.created_at)::float8 AS seconds
), noted AS (
    SELECT result.channel, 'attempts' AS measure, attempt.outcome, attempt.error_code, 0 AS attempts,
           duration_ms / 1000.0 AS seconds
    FROM attempt JOIN result ON result.id = attempt.record_id
    UNION ALL
    SELECT channel, CASE WHEN round = 0 THEN 'deliveries' ELSE 'replays' END, status, '', attempt_count, seconds
    FROM taken
    WHERE status <> 'failed'
), counted AS ({tallies.COUNT})
SELECT id FROM taken
"""  # noqa: S608  our own words

_LOST = f"""
WITH lost AS (
    SELECT record.id, record.channel, lost.round, lost.number, lost.cause
    FROM unnest(%(ids)s::bigint[], %(leases)s::uuid[], %(rounds)s::int[], %(numbers)s::int[], %(causes)s::text[])
         AS lost(id, lease_token, round, number, cause)
    JOIN notification_records AS record USING (id)
    WHERE record.status = 'sending' AND record.lease_token = lost.lease_token
), attempt AS (
    INSERT INTO notification_delivery_attempts (
        record_id, round, number, cause, started_at, outcome, error_code, error, response_excerpt, worker
    )
    SELECT id, round, number, cause, COALESCE(%(now)s, statement_timestamp()), 'lost', %(code)s, %(error)s, '', ''
    FROM lost
    ON CONFLICT DO NOTHING
    RETURNING record_id, outcome, error_code
), noted AS (
    SELECT channel, 'attempts' AS measure, outcome, error_code, 0 AS attempts, 0 AS seconds
    FROM attempt JOIN lost ON lost.id = attempt.record_id
), counted AS ({tallies.COUNT})
SELECT id FROM lost
"""  # noqa: S608  our own words


def settle_batch(group: Sequence[Settlement], clock: Clock | None) -> set[int]:
    """Write down a group of results; return the ids of the records that took theirs.

    A record that is missing from the answer was settled by somebody else; its attempt is kept all the same.
    """
    parameters: dict[str, Any] = {
        "now": clock() if clock else None,
        "worker": worker_name(),
        "results": _ENCODE([_as_row(item) for item in group]),
        **tallies.count_parameters(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, parameters)
        return {row[0] for row in cursor.fetchall()}


def record_lost_attempts(rows: Iterable[Claimed], clock: Clock | None) -> set[int]:
    """Insert an attempt row for each attempt whose worker vanished: it may have arrived, and the audit has no gap.

    Call it under the rows' locks. Returns the ids of rows that must not be sent: their former worker was only late, and
    settled its success between our claim and our lock.
    """
    lost = [row for row in rows if row.cause == Cause.RECOVERY]
    if not lost:
        return set()
    parameters = {
        "now": clock() if clock else None,
        "code": ErrorCode.LEASE_EXPIRED.value,
        "error": "the lease ran out before an answer was written down",
        "ids": [row.record_id for row in lost],
        "leases": [row.lease_token for row in lost],
        "rounds": [row.round for row in lost],
        "numbers": [row.attempt_count if row.exhausted else row.attempt_count - 1 for row in lost],
        "causes": [str(_likely_cause(row)) for row in lost],
        **tallies.count_parameters(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_LOST, parameters)
        return {row.record_id for row in lost} - {row[0] for row in cursor.fetchall()}


def log_attempt(item: Settlement, *, settled: bool) -> None:
    """Write the one log line of an attempt: every fact, no secret.

    settled: whether the record took the result; False when its lease had been lost or the database was away.
    """
    row, result = item.row, item.result
    facts = {
        "event": "delivery.attempted",
        "record_id": row.record_id,
        "channel": row.channel,
        "user_id": row.user_id,
        "dedupe_key": row.dedupe_key,
        "trace_id": row.trace_id,
        "cause": str(row.cause),
        "round": row.round,
        "attempt": row.attempt_count,
        "max_attempts": row.max_attempts,
        "outcome": str(result.outcome),
        "status": str(item.status),
        "settled": settled,
        "error_code": item.error_code,
        "error": item.error,
        "http_status": result.http_status,
        "duration_ms": round(item.duration * 1000),
        "retry_in_s": item.delay,
        "worker": worker_name(),
    }
    attempt_log.info("delivery.attempted record=%d status=%s", row.record_id, item.status, extra=facts)
    if result.unmapped:
        report_unmapped_code(row.channel, row.record_id, result)


def _likely_cause(row: Claimed) -> Cause:
    """The claim of a lost attempt is gone, but its number tells a first send from a retry."""
    if row.attempt_count - (not row.exhausted) > 1:
        return Cause.SWEEP
    return Cause.REPLAY if row.round else Cause.EVENT


def _as_row(item: Settlement) -> dict[str, Any]:
    """Return the row of `_SETTLE`'s results; one document for all is a tenth of the work of a list for each column."""
    row, result = item.row, item.result
    payload = result.request_payload
    return {
        "id": row.record_id,
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
        "wait_reason": item.hold_reason,
    }
