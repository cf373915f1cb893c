"""The payload of a trigger: what made the product look at a user's schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext_lazy as _

from notifications.ingest.validation import MAX_INT64, Check

TRIGGERED = "active_schedule.triggered"
WINDOW = 1800
"""Seconds in which one user hears of one type of trigger once."""
TRIGGER_TYPES = ("important_urgent_task", "unfinished_feedback")
SOURCES = ("worker_due_job", "api_trigger", "user_feedback")
DRY_RUN = "api_dry_run"
TARGET_TYPES = ("task_pool", "schedule_event", "task_item")
IDENTIFIERS = {"trigger_id": 191, "idempotency_key": 128, "trace_id": 191}
TRIGGER_FIELDS = {
    *("event_version", "user_id", "trigger_type", "source", "target_type", "target_id", "requested_at"),
    *("mock_now", "is_mock_time", *IDENTIFIERS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A payload that passed every rule."""

    trigger_id: str
    user_id: int
    trigger_type: str
    source: str
    target_type: str
    target_id: int
    requested_at: datetime
    mock_now: datetime | None = None
    """What counts as now, in tests of the product; never without the mark `is_mock_time`."""
    idempotency_key: str = ""
    trace_id: str = ""

    @property
    def dedupe_key(self) -> str:
        """What its notification is known by: the producer's key, or else the half hour it falls into."""
        if self.idempotency_key:
            return f"{self.user_id}:{self.trigger_type}:key:{self.idempotency_key}"
        now = self.mock_now or self.requested_at
        return f"{self.user_id}:{self.trigger_type}:{int(now.timestamp()) // WINDOW}"

    def as_json(self) -> dict[str, Any]:
        """Return the payload that says the same, as JSON values."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values |= {"requested_at": self.requested_at.isoformat(), "event_version": "1"}
        values |= {"is_mock_time": self.mock_now is not None}
        values |= {"mock_now": self.mock_now.isoformat() if self.mock_now else None}
        return values


def parse_trigger(payload: object, *, max_user_id: int = MAX_INT64) -> Trigger:
    """Return the trigger in `payload`, a mapping as described in docs/events.md.

    max_user_id: the largest key the user table can hold.
    Raises InvalidNotification listing every field that is wrong and why.
    """
    check = Check(payload, TRIGGER_FIELDS)
    user_id = check.positive("user_id", max_user_id)
    words = {name: check.word(name, limit, required=name == "trigger_id") for name, limit in IDENTIFIERS.items()}
    trigger_type = check.choice("trigger_type", TRIGGER_TYPES)
    source = check.choice("source", (*SOURCES, DRY_RUN))
    if source == DRY_RUN:
        check.refuse("source", _("a dry run notifies nobody"))
    target_type = check.choice("target_type", TARGET_TYPES)
    target_id = check.positive("target_id")
    requested_at = check.moment("requested_at")
    mock_now = _mock_now(check)
    check.version()
    check.unknown()
    check.end()
    assert requested_at is not None  # noqa: S101  it was refused otherwise
    return Trigger(
        user_id=user_id,
        trigger_type=trigger_type,
        source=source,
        target_type=target_type,
        target_id=target_id,
        requested_at=requested_at,
        mock_now=mock_now,
        **words,
    )


def _mock_now(check: Check) -> datetime | None:
    payload: Mapping[str, Any] = check.payload
    marked = payload.get("is_mock_time")
    if marked is not None and not isinstance(marked, bool):
        check.refuse("is_mock_time", _("must be true or false"))
    elif payload.get("mock_now") is None:
        return None
    elif not marked:
        check.refuse("mock_now", _("goes with is_mock_time only"))
    return check.moment("mock_now") if payload.get("mock_now") is not None else None
