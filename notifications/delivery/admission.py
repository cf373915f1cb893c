"""Admission: which claimed records may be sent now. The others are released and become due later."""

from __future__ import annotations

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.delivery import circuit_breaker
from notifications.delivery.claim import Claimed, release_claims
from notifications.delivery.held_records import release_if_recovered
from notifications.delivery.locks import HeldLocks, Locks
from notifications.delivery.rate_limits import RateLimits
from notifications.delivery.settlement import HOLD_RECHECK_SECONDS
from notifications.states import Cause, HoldReason


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
        release_claims(blocked, delay=HOLD_RECHECK_SECONDS, clock=clock, hold_reason=reason)
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
    release_claims(
        limited,
        delay=[delays[row.record_id] for row in limited],
        clock=clock,
        hold_reason=HoldReason.RATE_LIMITED,
    )
    return [row for row in rows if row.record_id not in delays]


def lock_keys(
    rows: list[Claimed], locks: Locks, options: ServiceOptions, clock: Clock | None
) -> tuple[list[Claimed], HeldLocks]:
    """Take the Redis locks of the records, and keep the records whose lock was free.

    Args:
        rows: The claimed records.
        locks: The Redis locks.
        options: For `held_key_delay`, the seconds after which a record with a held key is due again.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        The records that were kept, and their locks.
    """
    held = locks.acquire(row.lock_key for row in rows)
    busy = [row for row in rows if row.lock_key not in held.keys]
    release_claims(busy, delay=options.held_key_delay, clock=clock)
    return [row for row in rows if row.lock_key in held.keys], held
