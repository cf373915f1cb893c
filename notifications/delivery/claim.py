"""Claim: take due records under a lease, or release them again."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.conf.options import SKIP
from notifications.content.message import MessageContent
from notifications.content.rendering import build_message_text
from notifications.delivery.locks import lock_key
from notifications.delivery.prepared import USE_PLAN, forget_prepared, prepare
from notifications.ordering.key_order import BLOCKED, dead_blocks, hold_blocked, letting_next_go, order_keys
from notifications.providers.base import Endpoint, SendRequest
from notifications.querysets import inactive_users, primary_users
from notifications.security.secrets import Secret
from notifications.sql import FORBID_SORT, load_sql
from notifications.states import AuthType, Cause, Priority, Status
from notifications.user_keys import UserKey, plain_user_key

TEST_TRIGGER = "test"
"""The trigger type of test messages."""
TEST_KEY_PREFIX = "test:"
"""The beginning of their dedupe keys."""


@dataclass(slots=True, kw_only=True)
class Claimed:
    """One claimed record: the message, the lease, and the state before the claim."""

    record_id: int
    lease_token: str
    channel: str
    dedupe_key: str
    order_key: str = ""
    """Of the records of the channel with this key only one is in flight; empty: it is not ordered."""
    user_id: int | str | None
    """As in `SendRequest`."""
    trace_id: str
    priority: int
    attempt_count: int
    """Attempts made, including this one."""
    max_attempts: int
    round: int
    """Number of replays before this attempt."""
    exhausted: bool
    """True if nothing may be sent: the message expired, or no attempt is left."""
    request: SendRequest
    endpoint: Endpoint | None
    endpoint_id: int | None = None
    """Id of the endpoint that the record names; None if it goes to the user's endpoint without a label."""
    channel_id: int | None = None
    """Id of the endpoint, if there is one."""
    paused: bool = False
    """True if the channel was paused when the record was claimed."""
    failures: int = 0
    """Failures in a row of the endpoint when the record was claimed."""
    probe_in: float | None = None
    """Seconds until a failing endpoint may be probed; None for a healthy endpoint."""
    user_inactive: bool = False
    """True if nothing may be sent, because the user is inactive and INACTIVE_USERS is "skip"."""
    message_expired: bool = False
    """True if the record's `expires_at` has passed."""
    due_since: float = 0.0
    """Unix time at which it became due."""
    planned: bool = False
    """True if a rate limit gave the record the time at which it became due."""
    was_held: bool = False
    """True if the record was held for its endpoint until this claim."""
    previous_status: str
    previous_lease: str | None
    lease_deadline: float
    """When the lease ends, in seconds of this process's monotonic clock."""

    @property
    def lock_key(self) -> str:
        """The key of the Redis lock for this record."""
        return lock_key(self.channel, self.dedupe_key)

    @property
    def unsendable(self) -> bool:
        """True if nothing may be sent: no attempt is left, the message expired, or the user is inactive."""
        return self.exhausted or self.user_inactive

    @property
    def is_test(self) -> bool:
        """Whether this is a test message of the user's channel."""
        return self.request.trigger_type == TEST_TRIGGER and self.dedupe_key.startswith(TEST_KEY_PREFIX)

    @property
    def cause(self) -> Cause:
        """Why this attempt is made."""
        if self.previous_status == Status.SENDING:
            return Cause.RECOVERY
        if self.previous_status == Status.FAILED:
            return Cause.SWEEP
        return Cause.REPLAY if self.round else Cause.EVENT


class Claims(list[Claimed]):
    """The records of one claim in the order of their turns: the longest overdue of a priority first."""

    blocked = 0
    """How many more records were due, and have to wait for another one of their order key. They are held now."""


CLAIM_TRIES = 3
"""How often a claim is made if another process claims a record of the same order key at the same moment."""
CLAIM = load_sql("notifications.delivery", "claim", blocked=BLOCKED)
_NEXT_DUE = load_sql("notifications.delivery", "next_due")
_RELEASE_CLAIMS = load_sql("notifications.delivery", "release_claims")


def claim(
    limit: int,
    *,
    channels: Sequence[str],
    options: ServiceOptions,
    clock: Clock | None,
    ids: Sequence[int] | None = None,
    priorities: Sequence[int] = tuple(Priority.values),
    since: Mapping[int, float] = MappingProxyType({}),
    before: str = "",
) -> Claims:
    """Claim due records for one lease and commit, so that no other process can claim them meanwhile.

    Of the records of an order key only the first one is claimed, and none while another one of the key is in flight.
    Those that have to wait are held.

    Args:
        limit: Largest number of records to claim and to hold.
        channels: Names of the channels whose records are claimed.
        options: For the lease (seconds) and the default number of attempts.
        clock: Clock of a test; None for PostgreSQL's clock.
        ids: Claim only these records, and only if they are due.
        priorities: Claim only records of these priorities.
        since: Where the queue of each priority begins, as Unix time at which its records became due. A priority that
            is missing begins at its real beginning.
        before: Statement that runs just before, in the same message to the server; it ends with a semicolon.

    Returns:
        The claimed records, and the number of those that are held.

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
        "priorities": list(priorities),
        "limit": limit,
        "max_attempts": options.max_attempts,
        "lease": options.lease,
        "token": token,
        "ids": None if ids is None else list(ids),
        "since": [since.get(priority) for priority in priorities],
        "dead_blocks": dead_blocks(),
    }
    for tries_left in reversed(range(CLAIM_TRIES)):
        try:
            found = _execute(parameters, before)
            break
        except IntegrityError:
            # Another process has claimed a record of the same order key, which came before ours after we had looked.
            if not tries_left:
                raise
    blocked = [row for row in found if row["blocked"]]
    if blocked:
        keys = list({(row["due_channel"], row["order_key"]) for row in blocked})
        hold_blocked([row["due_id"] for row in blocked], keys, clock)
    rows = [row for row in found if row["id"] is not None]
    emails = _email_addresses({row["user_id"] for row in rows if _may_need_email(row)})
    skipped = options.inactive_users == SKIP
    owners = {row["user_id"] for row in rows if row["enabled"] and row["user_id"] is not None}
    inactive = inactive_users(owners) if skipped else set()
    claims = Claims(
        _build_claimed(
            row | {"user_inactive": row["user_id"] in inactive}, token, lease_deadline, emails.get(row["user_id"], "")
        )
        for row in rows
    )
    claims.blocked = len(blocked)
    return claims


def _execute(parameters: dict[str, Any], before: str) -> list[dict[str, Any]]:
    """Execute a claim and commit. Return its rows."""
    by_id = parameters["ids"] is not None
    statements = [before, CLAIM] if by_id else [before, FORBID_SORT, CLAIM]
    # A driver that binds parameters on the server takes one statement at a time.
    one_by_one = connection.settings_dict["OPTIONS"].get("server_side_binding")
    in_transaction = connection.in_atomic_block or one_by_one
    with (
        transaction.atomic(durable=True) if in_transaction else contextlib.nullcontext(),
        connection.cursor() as cursor,
    ):
        if one_by_one:
            for statement in filter(None, statements):
                cursor.execute(statement, parameters if statement == CLAIM else None)
        elif in_transaction or parameters["now"] or by_id or not _execute_prepared(cursor, before, parameters):
            # The statements go to the server in one message, which is one transaction. BEGIN and COMMIT would cost two
            # more round trips.
            cursor.execute("".join(statements), parameters)
        while is_psycopg3 and cursor.nextset():
            pass  # psycopg 3 returns the result of each statement, psycopg2 that of the last one
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _execute_prepared(cursor: Any, before: str, parameters: dict[str, Any]) -> bool:
    """Execute a claim of the oldest records as a prepared statement. Return whether that was possible."""

    def statement() -> str:
        numbered = CLAIM.replace("%(token)s", "$1").replace("%(since)s", "$2")
        filled: Any = cursor.mogrify(numbered, parameters)
        return filled.decode() if isinstance(filled, bytes) else str(filled)

    # Sorting is forbidden as in a claim that is not prepared: PostgreSQL plans at the first EXECUTE.
    varying = {name: value for name, value in parameters.items() if name not in ("token", "since")}
    name = prepare(cursor, statement, key=f"{CLAIM}{varying}", types="uuid, float8[]")
    if not name:
        return False
    try:
        cursor.execute(f"{before}{FORBID_SORT}{USE_PLAN}EXECUTE {name} (%(token)s, %(since)s::float8[])", parameters)
    except DatabaseError as error:
        if not forget_prepared(error):
            raise
        return False
    return True


def seconds_until_due(channels: Sequence[str], *, within: float) -> float | None:
    """Return how soon the next record becomes due.

    Args:
        channels: Names of the channels.
        within: Seconds to look ahead.

    Returns:
        The seconds, by PostgreSQL's clock; None if no record becomes due within that time.
    """
    with connection.cursor() as cursor:
        parameters = {"now": None, "channels": list(channels), "priorities": Priority.values, "within": within}
        cursor.execute(_NEXT_DUE, parameters)
        seconds: float | None = cursor.fetchone()[0]
    return seconds


def release_claims(
    rows: Sequence[Claimed], *, delay: float | Sequence[float], clock: Clock | None, hold_reason: str = ""
) -> set[int]:
    """Undo claims: restore status, attempt count and lease. A record that is no longer under our lease is not changed.

    The previous lease token is restored too, so that a slow worker that still holds it can settle its result.

    Args:
        rows: The claimed records.
        delay: Seconds until they are due again: one value for all, or one per record.
        clock: Clock of a test; None for PostgreSQL's clock.
        hold_reason: A `HoldReason` that tells operators why the records wait.

    Returns:
        Ids of the records that were changed.
    """
    if not rows:
        return set()
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
    with letting_next_go(order_keys(rows), clock), connection.cursor() as cursor:
        cursor.execute(_RELEASE_CLAIMS, parameters)
        return {row[0] for row in cursor.fetchall()}


def _may_need_email(row: dict[str, Any]) -> bool:
    """Return whether a record goes to the user's own address, if its channel allows that."""
    if row["user_id"] is None or row["webhook_url"]:
        return False
    no_endpoint = row["enabled"] is None and row["endpoint_id"] is None and row["content"] is not None
    return bool(row["enabled"]) or no_endpoint


def _email_addresses(user_ids: set[UserKey]) -> dict[UserKey, str]:
    """Return the users' own email addresses, for channels without an address. Most claims have no such channel."""
    model = get_user_model()
    name = model.get_email_field_name()
    if not user_ids or name not in {field.name for field in model._meta.get_fields()}:
        return {}
    return dict(primary_users().filter(pk__in=user_ids).values_list("pk", name))


def _build_claimed(row: dict[str, Any], token: str, lease_deadline: float, email: str) -> Claimed:
    row["user_id"] = plain_user_key(row["user_id"])
    content = MessageContent.from_json(orjson.loads(row["content"])) if row["content"] else None
    text, fallback_used = row["summary_text"], False
    if content is None:
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
        key=row["request_key"],
        content=content,
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
    elif content is not None and row["endpoint_id"] is None:
        # A message of `notify` reaches a user who has not entered an endpoint, on a channel that needs no address.
        blank = Secret("")
        endpoint = Endpoint(
            enabled=True, webhook_url=blank, auth_type=AuthType.NONE, bearer_token=blank, user_email=email or ""
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
    *("trace_id", "attempt_count", "round", "title", "kind"),
)

_CLAIMED_COLUMNS = (
    *(
        "channel",
        "dedupe_key",
        "order_key",
        "user_id",
        "endpoint_id",
        "trace_id",
        "priority",
        "attempt_count",
        "max_attempts",
        "round",
    ),
    *("previous_status", "exhausted", "message_expired", "user_inactive", "channel_id", "paused", "probe_in"),
    *("planned", "was_held", "due_since"),
)
