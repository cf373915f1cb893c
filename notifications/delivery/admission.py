"""Admission: which claimed records may be sent now. The others are released and become due later."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from django.db import transaction

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.delivery import circuit_breaker
from notifications.delivery.claim import Claimed, release_claims
from notifications.delivery.held_records import release_if_recovered
from notifications.delivery.locks import KeyLock, Locks, lock_margin
from notifications.delivery.rate_limits import RateLimits
from notifications.delivery.settle import record_lost_attempts
from notifications.delivery.settlement import HOLD_RECHECK_SECONDS
from notifications.lifecycle.events import heard_signals, write_events
from notifications.states import HELD_BY_ENDPOINT, Cause, HoldReason, Status


def admit_one_recovered(rows: list[Claimed], clock: Clock | None) -> list[Claimed]:
    """Keep only the first record that lost its worker, and release the other ones unchanged.

    A record whose send kills the worker must not cost the same other records another attempt each time.

    Args:
        rows: The claimed records.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        The records that were kept.
    """
    recovered = [row for row in rows if row.cause == Cause.RECOVERY]
    released = {row.record_id for row in recovered[1:]}
    release_claims(recovered[1:], delay=0, clock=clock)
    return [row for row in rows if row.record_id not in released]


def lock_claim(
    rows: list[Claimed], locks: Locks, options: ServiceOptions, clock: Clock | None, *, caller_lock: KeyLock | None
) -> tuple[list[Claimed], KeyLock | None]:
    """Lock the claim, and keep a recovered record only if the worker that sent it is gone.

    A worker of this version is gone if the lock of its claim has ended. An event that is delivered inline, and a worker
    of the version before claim locks, hold the key of the record instead.

    Args:
        rows: The records of one claim, at least one; at most one of them is recovered.
        locks: The Redis locks.
        options: For `held_key_delay`, the seconds after which a record whose worker lives is due again.
        clock: Clock of a test; None for PostgreSQL's clock.
        caller_lock: Lock of the record's key, if the caller has taken it.

    Returns:
        The records that were kept, and the lock of the recovered record's key if it was taken here.
    """
    lease_left = rows[0].lease_deadline - time.monotonic()
    locks.hold_claim(rows[0].lease_token, seconds=lease_left + lock_margin(options))
    recovered = next((row for row in rows if row.cause == Cause.RECOVERY), None)
    if recovered is None:
        return rows, None
    lock = None
    held = recovered.previous_lease is not None and locks.is_claim_held(recovered.previous_lease)
    if not held and caller_lock is None:
        lock = locks.acquire(recovered.lock_key)
        held = lock is None
    if held:
        release_claims([recovered], delay=options.held_key_delay, clock=clock)
        rows = [row for row in rows if row is not recovered]
    return rows, lock


def admit_unsettled(rows: list[Claimed], clock: Clock | None) -> list[Claimed]:
    """Record the lost attempts of recovered records, and drop the records that their former worker has settled.

    Args:
        rows: The claimed records, after `lock_claim`.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        The records that were kept.
    """
    settled = record_lost_attempts(rows, clock)
    return [row for row in rows if row.record_id not in settled]


def admit_healthy(rows: list[Claimed], options: ServiceOptions, clock: Clock | None) -> list[Claimed]:
    """Keep the records whose endpoint is healthy, or whose send is its probe. The other ones are held.

    Args:
        rows: The claimed records.
        options: For the circuit breaker.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        The records that were kept.
    """
    reasons = circuit_breaker.blocked_rows(rows, options, clock)
    for reason in set(reasons.values()):
        blocked = [row for row in rows if reasons.get(row.record_id) == reason]
        hold(blocked, reason, delay=HOLD_RECHECK_SECONDS, clock=clock)
        release_if_recovered({row.channel_id for row in blocked if row.channel_id is not None}, clock)
    return [row for row in rows if row.record_id not in reasons]


def admit_within_limits(rows: list[Claimed], limits: RateLimits, clock: Clock | None) -> list[Claimed]:
    """Keep the records that the rate limits of their endpoints allow now.

    Args:
        rows: The claimed records.
        limits: The rate limits.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        The records that were kept.
    """
    delays = limits.delays(rows)
    limited = [row for row in rows if row.record_id in delays]
    hold(limited, HoldReason.RATE_LIMITED, delay=[delays[row.record_id] for row in limited], clock=clock)
    return [row for row in rows if row.record_id not in delays]


def hold(rows: list[Claimed], reason: HoldReason, *, delay: float | Sequence[float], clock: Clock | None) -> None:
    """Release records that have to wait for their endpoint. A recovered one waits like others, without a lease.

    Its lost attempt is recorded. With its former lease it would look as if a worker sent it while it is held, and
    nobody could cancel it. A late success of the former worker still settles it.

    Args:
        rows: The claimed records, after `admit_unsettled`.
        reason: What they wait for.
        delay: Seconds until they are due again: one value for all, or one per record.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    waiting = [
        replace(row, previous_status=Status.FAILED, previous_lease=None) if row.cause == Cause.RECOVERY else row
        for row in rows
    ]
    if reason not in HELD_BY_ENDPOINT or not heard_signals():
        release_claims(waiting, delay=delay, clock=clock, hold_reason=reason)
        return
    with transaction.atomic():
        held = release_claims(waiting, delay=delay, clock=clock, hold_reason=reason)
        write_events((row.record_id, "held") for row in waiting if row.record_id in held and not row.was_held)
