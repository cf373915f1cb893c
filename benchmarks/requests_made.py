"""Requests as another app of the project makes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.wire import SUMMARY

if TYPE_CHECKING:
    from notifications.ingest.payload import NotificationPayload


def payload(key: str, user_id: int) -> NotificationPayload:
    """Return the payload of one request; its preview id is the key, by which the receiver tells messages apart."""
    return {
        "user_id": user_id,
        "preview_id": key,
        "dedupe_key": key,
        "target_url": "/assistant/1",
        "summary_text": SUMMARY,
        "requested_at": "2026-05-01T07:59:00Z",
    }


def row(key: str, user_id: int) -> dict[str, Any]:
    """Return the columns that a request ends up in, times included: with its own Now() the ORM takes longer."""
    from django.utils import timezone

    from notifications.conf import DEFAULT_FALLBACK_TEXT

    given: dict[str, Any] = {**payload(key, user_id)}
    del given["requested_at"]
    times = dict.fromkeys(("next_attempt_at", "created_at", "updated_at"), timezone.now())
    fixed = {"channel": "feishu", "fallback_text": DEFAULT_FALLBACK_TEXT, "status": "pending", "max_attempts": 5}
    return given | fixed | times


def commit_one(key: str, user_id: int) -> int:
    """Request one notification in a transaction; return the moment it was committed (nanoseconds, monotonic)."""
    from django.db import transaction

    from notifications.api import request_notification

    committed: list[int] = []
    with transaction.atomic():
        # Registered first, so that it runs before the nudge does.
        transaction.on_commit(lambda: committed.append(time.monotonic_ns()))
        request_notification(payload(key, user_id))
    return committed[0]


@contextmanager
def nudging_by(way: str) -> Iterator[None]:
    """Let the requests of this process wake workers in one way, a value of NUDGE, while the block lasts."""
    from django.conf import settings
    from django.test import override_settings

    with override_settings(NOTIFICATIONS=settings.NOTIFICATIONS | {"NUDGE": way}):
        yield
