"""Claim: take due records under a lease, or release them again."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.rendering import build_message_text
from notifications.delivery.locks import lock_key
from notifications.providers.base import Endpoint, SendRequest
from notifications.querysets import primary_users
from notifications.security.secrets import Secret
from notifications.sql import FORBID_SORT, load_sql
from notifications.states import Cause, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One claimed record: the message, the lease, and the state before the claim."""

    record_id: int
    lease_token: str
    channel: str
    dedupe_key: str
    user_id: int
    trace_id: str
    attempt_count: int
    """Attempts made, including this one."""
    max_attempts: int
    round: int
    """Number of replays before this attempt."""
    exhausted: bool
    """True if nothing may be sent: the message expired, or no attempt is left."""
    request: SendRequest
    endpoint: Endpoint | None
    channel_id: int | None = None
    """Id of the user's channel settings."""
    paused: bool = False
    """True if the channel was paused when the record was claimed."""
    failures: int = 0
    """Failures in a row of the endpoint when the record was claimed."""
    probe_in: float | None = None
    """Seconds until a failing endpoint may be probed; None for a healthy endpoint."""
    message_expired: bool = False
    """True if the record's `expires_at` has passed."""
    previous_status: str
    previous_lease: str | None
    lease_deadline: float
    """When the lease ends, in seconds of this process's monotonic clock."""

    @property
    def lock_key(self) -> str:
        """The key of the Redis lock for this record."""
        return lock_key(self.channel, self.dedupe_key)

    @property
    def cause(self) -> Cause:
        """Why this attempt is made."""
        if self.previous_status == Status.SENDING:
            return Cause.RECOVERY
        if self.previous_status == Status.FAILED:
            return Cause.SWEEP
        return Cause.REPLAY if self.round else Cause.EVENT


CLAIM = load_sql("notifications.delivery", "claim")
_RELEASE_CLAIMS = load_sql("notifications.delivery", "release_claims")


def claim(
    limit: int, *, channels: Sequence[str], options: ServiceOptions, clock: Clock | None, record_id: int | None = None
) -> list[Claimed]:
    """Claim due records for one lease and commit, so that no other process can claim them meanwhile.

    Args:
        limit: Largest number of records to claim.
        channels: Names of the channels whose records are claimed.
        options: For the lease (seconds) and the default number of attempts.
        clock: Clock of a test; None for PostgreSQL's clock.
        record_id: Claim only this record, and only if it is due.

    Returns:
        The claimed records, the longest overdue first.

    Raises:
        ImproperlyConfigured: The database has AUTOCOMMIT = False, so that no claim would be committed.
        RuntimeError: The caller has an open transaction. Other processes must see the claim before anything is sent.
        DatabaseError: The claim failed; it may have been committed, and then its lease ends later.
    """
    if not connection.settings_dict["AUTOCOMMIT"] or not (connection.in_atomic_block or transaction.get_autocommit()):
        raise ImproperlyConfigured("AUTOCOMMIT is off: the claim would not be committed before the message is sent.")
    token = str(uuid.uuid4())
    lease_deadline = time.monotonic() + options.lease  # before the claim, so that we never see the lease end too late
    parameters = {
        "now": clock() if clock else None,
        "channels": list(channels),
        "limit": limit,
        "max_attempts": options.max_attempts,
        "lease": options.lease,
        "token": token,
        "record_id": record_id,
    }
    # Both statements go to the server in one message, which is one transaction. BEGIN and COMMIT would cost two more
    # round trips. A driver that binds parameters on the server takes one statement at a time.
    statements = [CLAIM] if record_id is not None else [FORBID_SORT, CLAIM]
    if not connection.settings_dict["OPTIONS"].get("server_side_binding"):
        statements = ["".join(statements)]
    in_transaction = connection.in_atomic_block or len(statements) > 1
    with (
        transaction.atomic(durable=True) if in_transaction else contextlib.nullcontext(),
        connection.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement, parameters if statement != FORBID_SORT else None)
        if cursor.description is None:  # psycopg 3 returns the result of each statement, psycopg2 that of the last one
            cursor.nextset()
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        emails = _email_addresses({row["user_id"] for row in rows if row["enabled"] and not row["webhook_url"]})
    return [_build_claimed(row, token, lease_deadline, emails.get(row["user_id"], "")) for row in rows]


def release_claims(
    rows: Sequence[Claimed], *, delay: float | Sequence[float], clock: Clock | None, hold_reason: str = ""
) -> None:
    """Undo claims: restore status, attempt count and lease. A record that is no longer under our lease is not changed.

    The previous lease token is restored too, so that a slow worker that still holds it can settle its result.

    Args:
        rows: The claimed records.
        delay: Seconds until they are due again: one value for all, or one per record.
        clock: Clock of a test; None for PostgreSQL's clock.
        hold_reason: A `HoldReason` that tells operators why the records wait.
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
        cursor.execute(_RELEASE_CLAIMS, parameters)


def _email_addresses(user_ids: set[int]) -> dict[int, str]:
    """Return the users' own email addresses, for channels without an address. Most claims have no such channel."""
    model = get_user_model()
    name = model.get_email_field_name()
    if not user_ids or name not in {field.name for field in model._meta.get_fields()}:
        return {}
    return dict(primary_users().filter(pk__in=user_ids).values_list("pk", name))


def _build_claimed(row: dict[str, Any], token: str, lease_deadline: float, email: str) -> Claimed:
    text, fallback_used = build_message_text(
        summary=row["summary_text"],
        fallback=row["fallback_text"],
        fallback_used=row["fallback_used"],
        target_url=row["target_url"],
    )
    request = SendRequest(
        notification_id=row["id"],
        message_uid=str(row["message_uid"]) if row["message_uid"] else None,
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
