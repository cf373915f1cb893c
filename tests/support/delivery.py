"""An engine with a clock that a test moves, and records that are due by that clock."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from notifications.broker.redis_client import gateway
from notifications.conf import ServiceOptions, service_options
from notifications.delivery.engine import Engine
from notifications.delivery.locks import Locks
from notifications.models import NotificationRecord
from notifications.providers.base import SendResult
from notifications.providers.memory import MemoryProvider
from notifications.states import Outcome, Status

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
OK = SendResult(outcome=Outcome.SUCCESS)
TRY_LATER = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx", error_message="HTTP 503")


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **delta: float) -> None:
        """Move the clock by the arguments of a `timedelta`."""
        self.now += timedelta(**delta)


def options_with(**changes: Any) -> ServiceOptions:
    """Return the settings of the project with some changed."""
    return dataclasses.replace(service_options(), **changes)


def make_engine(memory: MemoryProvider, clock: Clock, **changes: Any) -> Engine:
    """Return an engine without Redis that sends Feishu messages to `memory`, with some settings changed."""
    return Engine(options=options_with(**changes), clock=clock, providers={"feishu": memory})


def make_locking_engine(memory: MemoryProvider, clock: Clock) -> Engine:
    """Return the same engine with Redis locks."""
    engine = make_engine(memory, clock)
    engine.locks = Locks(gateway(), ttl=60)
    return engine


def make_due_record(key: str = "k1", **fields: Any) -> NotificationRecord:
    """Return a stored record of user 42 that is due at NOW."""
    values = {"channel": "feishu", "user_id": 42, "target_url": "/a", "summary_text": "text", "max_attempts": 5}
    values |= {"dedupe_key": key, "next_attempt_at": NOW} | fields
    if values.get("status") == Status.SENDING:
        values.setdefault("lease_token", uuid.uuid4())
    return NotificationRecord.objects.create(**values)
