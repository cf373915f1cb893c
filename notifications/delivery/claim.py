"""Claim: take due rows under a lease, or give them back. The compare-and-set that everything rests on."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.rendering import build_message_text
from notifications.delivery.locks import lock_key
from notifications.providers.base import Endpoint, SendRequest
from notifications.security.secrets import Secret
from notifications.sql import FORBID_SORT
from notifications.states import Cause, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One row in our hands: what to send, under which lease, and what it was before."""

    record_id: int
    lease_token: str
    channel: str
    dedupe_key: str
    user_id: int
    trace_id: str
    attempt_count: int
    """Attempts made, this one included."""
    max_attempts: int
    round: int
    exhausted: bool
    """It has expired, or its lease ran out on the last attempt, or its budget was cut: nothing may be sent."""
    request: SendRequest
    endpoint: Endpoint | None
    channel_id: int | None = None
    """The row of the user's channel."""
    paused: bool = False
    failures: int = 0
    """Failures in a row of the endpoint when the row was claimed."""
    probe_in: float | None = None
    """Seconds until a failing endpoint may be tried; None for one that is well."""
    message_expired: bool = False
    previous_status: str
    previous_lease: str | None
    lease_deadline: float
    """When the lease runs out, on this process's monotonic clock."""

    @property
    def lock_key(self) -> str:
        """The key this row is serialised under."""
        return lock_key(self.channel, self.dedupe_key)

    @property
    def cause(self) -> Cause:
        """Why this attempt is made."""
        if self.previous_status == Status.SENDING:
            return Cause.RECOVERY
        if self.previous_status == Status.FAILED:
            return Cause.SWEEP
        return Cause.REPLAY if self.round else Cause.EVENT


# The endpoint comes with the claim, so that senders never touch the database and a send costs no further query.
CLAIM_SQL = """
WITH due AS (
    SELECT id, status, lease_token, attempt_count, next_attempt_at,
           CASE WHEN max_attempts > 0 THEN max_attempts ELSE %(max_attempts)s END AS allowed,
           COALESCE(expires_at <= COALESCE(%(now)s, statement_timestamp()), FALSE) AS message_expired
    FROM notification_records
    WHERE next_attempt_at <= COALESCE(%(now)s, statement_timestamp()) AND channel = ANY(%(channels)s) {only}
    ORDER BY next_attempt_at, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE notification_records AS record
    SET status = 'sending',
        lease_token = %(token)s,
        attempt_count = record.attempt_count
            + CASE WHEN record.attempt_count < due.allowed AND NOT due.message_expired THEN 1 ELSE 0 END,
        max_attempts = due.allowed,
        wait_reason = '',
        next_attempt_at = COALESCE(%(now)s, statement_timestamp()) + %(lease)s * interval '1 second',
        updated_at = COALESCE(%(now)s, statement_timestamp())
    FROM due
    WHERE record.id = due.id
    RETURNING record.id, record.channel, record.user_id, record.trigger_id, record.preview_id, record.trigger_type,
              record.target_type, record.target_id, record.dedupe_key, record.target_url, record.summary_text,
              record.fallback_text, record.fallback_used, record.trace_id, record.attempt_count, record.max_attempts,
              record.round, due.status AS previous_status, due.lease_token AS previous_lease,
              due.attempt_count >= due.allowed OR due.message_expired AS exhausted,
              due.message_expired, due.next_attempt_at AS was_due
)
SELECT claimed.*, endpoint.enabled, endpoint.webhook_url, endpoint.auth_type, endpoint.bearer_token,
       endpoint.id AS channel_id, endpoint.failures, endpoint.paused_at IS NOT NULL AS paused,
       EXTRACT(epoch FROM endpoint.probe_at - COALESCE(%(now)s, statement_timestamp()))::float8 AS probe_in
FROM claimed
LEFT JOIN user_notification_channels AS endpoint
       ON endpoint.user_id = claimed.user_id AND endpoint.channel = claimed.channel
ORDER BY claimed.was_due, claimed.id
"""

_GIVE_BACK = """
UPDATE notification_records AS record
SET status = was.status,
    attempt_count = was.attempt_count,
    lease_token = was.lease_token,
    next_attempt_at = COALESCE(%(now)s, statement_timestamp()) + was.delay * interval '1 second',
    wait_reason = %(hold_reason)s,
    updated_at = COALESCE(%(now)s, statement_timestamp())
FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[], %(statuses)s::text[], %(counts)s::int[], %(leases)s::uuid[],
            %(delays)s::float8[])
     AS was(id, our_token, status, attempt_count, lease_token, delay)
WHERE record.id = was.id AND record.status = 'sending' AND record.lease_token = was.our_token
"""


def claim(
    limit: int, *, channels: Sequence[str], options: ServiceOptions, clock: Clock | None, record_id: int | None = None
) -> list[Claimed]:
    """Take up to `limit` due rows, longest overdue first, and commit: from here on they are ours for one lease.

    record_id: take this row only, and only if it is due.
    Raises RuntimeError inside a transaction of the caller: the claim has to be seen by others before anything is sent.
    """
    token = str(uuid.uuid4())
    lease_deadline = time.monotonic() + options.lease
    parameters = {
        "now": clock() if clock else None,
        "channels": list(channels),
        "limit": limit,
        "max_attempts": options.max_attempts,
        "lease": options.lease,
        "token": token,
        "record_id": record_id,
    }
    sql = FORBID_SORT + CLAIM_SQL.format(only="")
    if record_id is not None:
        sql = CLAIM_SQL.format(only="AND id = %(record_id)s")
    # One message to the server is one transaction; BEGIN and COMMIT would be round trips of their own.
    outer = transaction.atomic(durable=True) if connection.in_atomic_block else contextlib.nullcontext()
    with outer, connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        if cursor.description is None:  # psycopg 3 shows each statement's answer, psycopg2 the last one's
            cursor.nextset()
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        emails = _own_emails({row["user_id"] for row in rows if row["enabled"] and not row["webhook_url"]})
    return [_claimed(row, token, lease_deadline, emails.get(row["user_id"], "")) for row in rows]


def release_claims(
    rows: Sequence[Claimed], *, delay: float | Sequence[float], clock: Clock | None, hold_reason: str = ""
) -> None:
    """Undo a claim: status, attempt count and lease as they were, to be looked at again after `delay` seconds.

    delay: for all of them, or one for each. hold_reason: a `HoldReason`, for people.
    The former lease is put back too, so that the worker which still holds the key can settle under it.
    """
    if not rows:
        return
    parameters = {
        "now": clock() if clock else None,
        "delays": list(delay) if isinstance(delay, Sequence) else [delay] * len(rows),
        "hold_reason": hold_reason,
        "tokens": [row.lease_token for row in rows],
        "ids": [row.record_id for row in rows],
        "statuses": [row.previous_status for row in rows],
        "counts": [row.attempt_count if row.exhausted else row.attempt_count - 1 for row in rows],
        "leases": [row.previous_lease for row in rows],
    }
    with connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK, parameters)


def _own_emails(users: set[int]) -> dict[int, str]:
    """Return the email address of users whose channel has none of its own; nearly every claim has no such user."""
    model = get_user_model()
    name = model.get_email_field_name()
    if not users or name not in {field.name for field in model._meta.get_fields()}:
        return {}
    return dict(model._default_manager.filter(pk__in=users).values_list("pk", name))


def _claimed(row: dict[str, Any], token: str, lease_deadline: float, email: str) -> Claimed:
    text, fallback_used = build_message_text(
        summary=row["summary_text"],
        fallback=row["fallback_text"],
        fallback_used=row["fallback_used"],
        target_url=row["target_url"],
    )
    request = SendRequest(
        notification_id=row["id"],
        message_text=text,
        fallback_used=fallback_used,
        **{name: row[name] for name in _REQUEST_COLUMNS},
    )
    endpoint = None
    if row["enabled"] is not None:
        endpoint = Endpoint(
            enabled=row["enabled"],
            webhook_url=Secret(row["webhook_url"]),
            auth_type=row["auth_type"],
            bearer_token=Secret(row["bearer_token"]),
            user_email=email or "",
        )
    return Claimed(
        record_id=row["id"],
        lease_token=token,
        request=request,
        endpoint=endpoint,
        previous_lease=str(row["previous_lease"]) if row["previous_lease"] else None,
        lease_deadline=lease_deadline,
        failures=row["failures"] or 0,
        **{name: row[name] for name in _CLAIMED_COLUMNS},
    )


_REQUEST_COLUMNS = (
    *("user_id", "trigger_id", "preview_id", "trigger_type", "target_type", "target_id", "target_url"),
    *("trace_id", "attempt_count", "round"),
)

_CLAIMED_COLUMNS = (
    *("channel", "dedupe_key", "user_id", "trace_id", "attempt_count", "max_attempts", "round"),
    *("previous_status", "exhausted", "message_expired", "channel_id", "paused", "probe_in"),
)
