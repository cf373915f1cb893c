"""Negative controls: the service with one of its guards off. A fault test that still passes then proves nothing."""

from __future__ import annotations

from collections.abc import Iterable

from notifications.delivery import claim, settle
from notifications.delivery.locks import HeldLocks, Locks

CONTROLS = ("claim", "fence", "lock")


def install(control: str) -> None:
    """Switch one guard off.

    Args:
        control: ``claim`` (rows are taken without being taken from others), ``fence`` (results are settled whoever has
            the lease) or ``lock`` (every key is granted); empty for none.

    Raises:
        ValueError: there is no such control.
    """
    match control:
        case "":
            pass
        case "claim":
            claim.CLAIM_SQL = _without(claim.CLAIM_SQL, "FOR UPDATE SKIP LOCKED", "")
            lease = "COALESCE(%(now)s, statement_timestamp()) + %(lease)s * interval '1 second'"
            claim.CLAIM_SQL = _without(claim.CLAIM_SQL, lease, "record.next_attempt_at")
        case "fence":
            fence = "record.status = 'sending' AND record.lease_token = result.lease_token"
            settle._SETTLE = _without(settle._SETTLE, fence, "TRUE")
        case "lock":
            Locks.acquire = _grant  # type: ignore[method-assign]
        case _:
            raise ValueError(f"no such control: {control!r}")


def _without(sql: str, guard: str, instead: str) -> str:
    if guard not in sql:
        raise ValueError(f"the guard is not where it was: {guard!r}")
    return sql.replace(guard, instead)


def _grant(self: Locks, keys: Iterable[str]) -> HeldLocks:
    return HeldLocks("", frozenset(keys))
