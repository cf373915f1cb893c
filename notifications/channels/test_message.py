"""A test message to a user's channel: it goes the way of every notification, with one attempt, and is remembered."""

from __future__ import annotations

import dataclasses
import math
import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils import timezone
from django.utils.translation import gettext

from notifications.clock import database_now
from notifications.conf import service_options
from notifications.delivery import circuit_breaker
from notifications.ingest.validation import EVENT_VERSION
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.service import HandleResult, NotificationService
from notifications.states import FINAL, Status, TestStatus


class TooSoon(Exception):
    """The user's last test is too short a time ago; nothing was sent. `seconds`: until the next one may be."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"the next test may be sent in {seconds} s")


def send_test(user: AbstractBaseUser, text: str = "", *, channel: str = "feishu") -> NotificationRecord:
    """Send one message now, as often as an operator likes, and return its record.

    text: what it says, by default that the channel works. Raises InvalidNotification for a text that cannot be sent.
    """
    return _noted(_service().handle_feishu_requested(_payload(user, f"{uuid.uuid4()}", text), channel=channel))


def send_own_test(user: AbstractBaseUser) -> NotificationRecord:
    """Send one message now, at most one in each TEST_INTERVAL, and return its record. Raises TooSoon.

    The interval's number is in the dedupe key, so the table itself holds everybody to it: all processes, on
    PostgreSQL's clock, and a user who deletes the channel and makes it anew.
    """
    interval, now = service_options().test_interval, database_now()
    number = math.floor(now.timestamp() / interval)
    result = _service().handle_feishu_requested(_payload(user, f"{interval:g}:{number}", ""))
    if result.reused and not result.delivered:
        raise TooSoon(max(1, math.ceil((number + 1) * interval - now.timestamp())))
    return _noted(result)


def error_of(record: NotificationRecord) -> str:
    """Return what went wrong with a test, in one line."""
    if not record.last_error_code and not record.last_error:
        return gettext("it is in a worker's hands")
    return f"{record.last_error_code}: {record.last_error}".strip(": ")


def _service() -> NotificationService:
    # One attempt: a test that comes through half an hour later would only puzzle its reader. A paused channel is tested
    # as well: that is how its user finds out whether it works again.
    return NotificationService(
        options=dataclasses.replace(service_options(), max_attempts=1), respect_circuit_breaker=False
    )


def _payload(user: AbstractBaseUser, number: str, text: str) -> dict[str, Any]:
    return {
        "event_version": EVENT_VERSION,
        "user_id": user.pk,
        "trigger_type": "test",
        "preview_id": "test",
        "dedupe_key": f"test:{user.pk}:{number}",
        "target_url": "/",
        "summary_text": text,
        "fallback_text": gettext("This is a test message: your channel works."),
        "requested_at": timezone.now().isoformat(),
    }


def _noted(result: HandleResult) -> NotificationRecord:
    """Write down beside the channel what came of a test, and return its record."""
    record = NotificationRecord.objects.get(pk=result.record_id)
    if record.status in FINAL:
        sent = record.status == Status.SENT
        rows = UserNotificationChannel.objects.filter(user_id=record.user_id, channel=record.channel)
        rows.update(
            last_test_status=TestStatus.SUCCESS if sent else TestStatus.FAILED,
            last_test_error="" if sent else error_of(record)[:191],
            last_test_at=timezone.now(),
        )
        unwell = rows.exclude(paused_at=None, probe_at=None).values_list("pk", flat=True)
        for channel_id in unwell if sent else ():
            circuit_breaker.resume_channel(channel_id, service_options())
    return record
