"""Records in any state, straight into the table."""

from __future__ import annotations

import itertools
import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

from notifications.models import DeliveryAttempt, NotificationRecord
from notifications.states import SCHEDULED, Cause, Outcome, Status

LIST = "/admin/notifications/notificationrecord/"
_numbers = itertools.count(1)


def make_record(status: str = Status.DEAD, **fields: Any) -> NotificationRecord:
    """Return a stored record in this status, with whatever the table demands for it."""
    now = timezone.now()
    defaults: dict[str, Any] = {
        "user_id": 42,
        "dedupe_key": f"key-{next(_numbers)}",
        "target_url": "/assistant/c-1",
        "summary_text": "写周报改到周四上午",
        "attempt_count": 5 if status == Status.DEAD else 0,
        "max_attempts": 5,
        "next_attempt_at": now + timedelta(minutes=5) if status in SCHEDULED else None,
        "lease_token": uuid.uuid4() if status == Status.SENDING else None,
        "last_error_code": "provider_config" if status == Status.DEAD else "",
        "sent_at": now if status == Status.SENT else None,
        "created_at": now,
    }
    return NotificationRecord.objects.create(status=status, **(defaults | fields))


def make_attempt(record: NotificationRecord, number: int = 1, **fields: Any) -> DeliveryAttempt:
    """Return a stored attempt of the record."""
    defaults: dict[str, Any] = {
        "round": record.round,
        "cause": Cause.EVENT,
        "started_at": timezone.now(),
        "duration_ms": 41,
        "outcome": Outcome.PERMANENT_FAIL,
        "error_code": "provider_config",
        "error": "code 19001",
        "http_status": 200,
    }
    return DeliveryAttempt.objects.create(record=record, number=number, **(defaults | fields))
