"""Triggers: events from which the project's own code, the composer, makes notifications.

The project's settings have the vocabulary (TRIGGER_TYPES, TRIGGER_SOURCES, TRIGGER_TARGET_TYPES) and name the composer
(TRIGGER_COMPOSER). This module checks the payload and calls the composer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from notifications.conf import MOVED_COMPOSER, service_options
from notifications.ingest.validation import MAX_INT64, Check, InvalidNotification

TRIGGERED = "active_schedule.triggered"
"""Name of the event and of its task."""
DEDUPE_WINDOW_SECONDS = 1800
"""A user gets one notification per trigger type in each window of this length."""
IDENTIFIER_LENGTHS = {"trigger_id": 191, "idempotency_key": 128, "trace_id": 191}
"""Longest accepted value of each, in characters after trimming."""
TRIGGER_FIELDS = {
    *("event_version", "user_id", "trigger_type", "source", "target_type", "target_id", "requested_at"),
    *("mock_now", "is_mock_time", *IDENTIFIER_LENGTHS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger whose payload passed every check."""

    trigger_id: str
    user_id: int
    trigger_type: str
    source: str
    target_type: str
    target_id: int
    requested_at: datetime
    mock_now: datetime | None = None
    """The current time in tests of the product. A payload may have it only together with `is_mock_time`."""
    idempotency_key: str = ""
    trace_id: str = ""

    @property
    def dedupe_key(self) -> str:
        """Dedupe key for its notification: from the producer's idempotency key, else from the half hour it is in."""
        if self.idempotency_key:
            return f"{self.user_id}:{self.trigger_type}:key:{self.idempotency_key}"
        now = self.mock_now or self.requested_at
        return f"{self.user_id}:{self.trigger_type}:{int(now.timestamp()) // DEDUPE_WINDOW_SECONDS}"

    def as_json(self) -> dict[str, Any]:
        """Return a payload with the same content, as JSON values. `parse_trigger` returns an equal trigger for it."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values |= {"requested_at": self.requested_at.isoformat(), "event_version": "1"}
        values |= {"is_mock_time": self.mock_now is not None}
        values |= {"mock_now": self.mock_now.isoformat() if self.mock_now else None}
        return values


Composer = Callable[[Trigger], Iterable[dict[str, Any]]]
"""Takes a trigger and returns the payloads of its notifications, as docs/events.md describes them."""


def parse_trigger(payload: object, *, max_user_id: int | None = MAX_INT64) -> Trigger:
    """Check a payload and return its trigger.

    Args:
        payload: A mapping with the fields of a trigger; docs/events.md lists them.
        max_user_id: The largest key that the user table can hold; None if its keys are no integers, which refuses every
            payload.

    Returns:
        The trigger. Its words are in the project's vocabulary.

    Raises:
        InvalidNotification: At least one field is wrong; `errors` lists each with its reason.
    """
    options = service_options()
    check = Check(payload, TRIGGER_FIELDS)
    user_id = check.user_id(max_user_id)
    identifiers = {
        name: check.line(name, length, required=name == "trigger_id") for name, length in IDENTIFIER_LENGTHS.items()
    }
    trigger_type = check.choice("trigger_type", options.trigger_types)
    source = check.choice("source", options.trigger_sources)
    target_type = check.choice("target_type", options.trigger_target_types)
    target_id = check.positive_integer("target_id")
    requested_at = check.time("requested_at")
    mock_now = _parse_mock_now(check)
    check.event_version()
    check.refuse_unknown_fields()
    check.raise_if_refused()
    assert requested_at is not None  # noqa: S101  check.raise_if_refused() raised otherwise
    return Trigger(
        user_id=user_id,
        trigger_type=trigger_type,
        source=source,
        target_type=target_type,
        target_id=target_id,
        requested_at=requested_at,
        mock_now=mock_now,
        **identifiers,
    )


def _parse_mock_now(check: Check) -> datetime | None:
    payload: Mapping[str, Any] = check.payload
    is_mock_time = payload.get("is_mock_time")
    if is_mock_time is not None and not isinstance(is_mock_time, bool):
        check.refuse("is_mock_time", _("must be true or false"))
    elif payload.get("mock_now") is None:
        return None
    elif not is_mock_time:
        check.refuse("mock_now", _("is allowed only with is_mock_time"))
    return check.time("mock_now") if payload.get("mock_now") is not None else None


_composing: ContextVar[tuple[Trigger, ...]] = ContextVar("composing", default=())
"""The triggers whose composer runs in this context."""


def compose(trigger: Trigger) -> list[dict[str, Any]]:
    """Call the project's composer.

    Args:
        trigger: What happened.

    Returns:
        The payloads of any number of notifications. They are not checked yet.

    Raises:
        InvalidNotification: The project has no composer, or the composer refuses the trigger.
        Exception: Whatever else the composer raises; ImportError if it cannot be imported.
    """
    path = service_options().trigger_composer
    # A composer that calls this function, or its old path notifications.composer.compose, would never end.
    if path in ("", MOVED_COMPOSER) or trigger in _composing.get():
        raise InvalidNotification([("payload", _("TRIGGER_COMPOSER is not set to a composer of this project"))])
    composer = cast(Composer, import_string(path))
    token = _composing.set((*_composing.get(), trigger))
    try:
        return list(composer(trigger))
    finally:
        _composing.reset(token)
