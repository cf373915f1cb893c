"""Negative controls: the service without one of its guards. A fault test that still passes then proves nothing.

Each control replaces a whole statement or function by its own. tests/unit/test_fault_controls.py checks that the
statements in dev/faults/sql differ from the service's only in the guard.
"""

from __future__ import annotations

from notifications.delivery import claim, settle
from notifications.delivery.locks import KeyLock, Locks
from notifications.ordering.key_order import BLOCKED
from notifications.sql import load_sql
from notifications.telemetry import counters

CONTROLS = ("claim", "fence", "lock")


def install(control: str) -> None:
    """Switch one guard off.

    Args:
        control: "claim" (a claim does not keep other claims off the row), "fence" (a result is stored under any lease),
            "lock" (every claim counts as abandoned, every key is granted), or empty for none.

    Raises:
        ValueError: There is no such control.
    """
    match control:
        case "":
            pass
        case "claim":
            claim.CLAIM = load_sql("dev.faults", "claim_without_guard", blocked=BLOCKED)
        case "fence":
            settle.SETTLE = load_sql(
                "dev.faults", "settle_without_fence", count_measurements=counters.COUNT_MEASUREMENTS
            )
        case "lock":
            Locks.acquire = _grant  # type: ignore[method-assign]
            Locks.is_claim_held = _is_never_held  # type: ignore[method-assign]
        case _:
            raise ValueError(f"no such control: {control!r}")


def _grant(self: Locks, key: str) -> KeyLock:
    return KeyLock(key, "")


def _is_never_held(self: Locks, lease_token: str) -> bool:
    return False
