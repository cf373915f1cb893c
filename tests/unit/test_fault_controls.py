"""Faults: the controls differ from the service only in the guard, and every failpoint exists."""

from __future__ import annotations

import difflib
import importlib

import pytest

from dev.faults.failpoints import POINTS
from notifications.sql import load_sql

GUARDS = {
    ("claim", "claim_without_guard"): [
        "-            FOR UPDATE SKIP LOCKED",
        "-        next_attempt_at = {now} + %(lease)s * interval '1 second',",
        "+        next_attempt_at = record.next_attempt_at,",
    ],
    ("settle", "settle_without_fence"): [
        "-            (record.status = 'sending' AND record.lease_token = result.lease_token)",
        "+            TRUE",
    ],
}


@pytest.mark.parametrize(("name", "control"), GUARDS)
def test_a_control_removes_its_guard_and_nothing_else(name: str, control: str) -> None:
    guarded = load_sql("notifications.delivery", name, current_time="{now}").splitlines()
    unguarded = load_sql("dev.faults", control, current_time="{now}").splitlines()

    changes = [line for line in difflib.unified_diff(guarded, unguarded, n=0) if line[:3] not in ("---", "+++")]

    assert [line for line in changes if not line.startswith("@@")] == GUARDS[name, control]


def test_every_failpoint_names_an_existing_function() -> None:
    missing = [
        point
        for point, (module, functions, _side) in POINTS.items()
        for function in functions.split()
        if not callable(getattr(importlib.import_module(module), function, None))
    ]

    assert missing == []
