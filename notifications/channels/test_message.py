"""Test messages: a notification with one attempt, whose result is stored with the channel."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
import uuid

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models.functions import Now
from django.utils.translation import gettext

from notifications.clock import database_now
from notifications.conf import service_options
from notifications.delivery import circuit_breaker
from notifications.delivery.claim import TEST_KEY_PREFIX, TEST_TRIGGER
from notifications.exceptions import NotificationError
from notifications.ingest.payload import TEXT_LENGTHS, NotificationRequest
from notifications.ingest.validation import Check
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.service import HandleResult, NotificationService
from notifications.states import FINAL, Status, TestStatus

POLL_INTERVAL_SECONDS = 0.1
"""How often the record of a test message is read while another process sends it."""
MAX_USER_KEY_CHARACTERS = 100
"""The dedupe key of a test message has the digest of a longer user key, because it has a length of its own."""


class TestRateLimited(NotificationError):
    """The user sent a test message less than TEST_INTERVAL ago, so nothing was sent.

    Args:
        seconds: Seconds until the next test message is allowed.
    """

    __test__ = False  # pytest would take the class for a test

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"the next test may be sent in {seconds} s")


def send_test_message(user: AbstractBaseUser, text: str = "", *, channel: str = "feishu") -> NotificationRecord:
    """Send a test message now, without a rate limit, for operators.

    Args:
        user: The owner of the channel.
        text: The text. By default it says that the channel works.
        channel: The name of the channel.

    Returns:
        The record of the message.

    Raises:
        InvalidNotification: The text cannot be sent.
    """
    return _store_test_result(_service().deliver_now(_request(user, f"{uuid.uuid4()}", text, channel)))


def send_test_to_endpoint(endpoint: UserNotificationChannel) -> NotificationRecord:
    """Send a test message to an endpoint now, without a rate limit, for operators.

    Args:
        endpoint: The endpoint; it may belong to nobody.

    Returns:
        The record of the message.
    """
    of_user = endpoint.user_id is not None and not endpoint.label
    request = NotificationRequest(
        user_id=endpoint.user_id,
        endpoint_id=None if of_user else endpoint.pk,
        channel=endpoint.channel,
        trigger_type=TEST_TRIGGER,
        preview_id="test",
        dedupe_key=f"{TEST_KEY_PREFIX}{endpoint.pk}:{uuid.uuid4()}",
        target_url="/",
        fallback_text=_default_text(),
    )
    return _store_test_result(_service().deliver_now(request))


def send_own_test_message(user: AbstractBaseUser) -> NotificationRecord:
    """Send a test message to the user's own channel, at most one per TEST_INTERVAL.

    The number of the interval is part of the dedupe key, so the database enforces the limit: for all processes, by
    PostgreSQL's clock, and also for a user who deletes the channel and creates it again.

    Args:
        user: The owner of the channel.

    Returns:
        The record of the message.

    Raises:
        TestRateLimited: The user sent a test message in this interval already.
    """
    interval, now = service_options().test_interval, database_now()
    number = math.floor(now.timestamp() / interval)
    result = _service().deliver_now(_request(user, f"{interval:g}:{number}"))
    if result.reused and not result.delivered:
        raise TestRateLimited(max(1, math.ceil((number + 1) * interval - now.timestamp())))
    return _store_test_result(result)


def describe_error(record: NotificationRecord) -> str:
    """Return the error of a test message in one line.

    Args:
        record: The record of a message that was not sent.
    """
    if not record.last_error_code and not record.last_error:
        return gettext("it is being sent")
    return f"{record.last_error_code}: {record.last_error}".strip(": ")


def _service() -> NotificationService:
    # One attempt, because a test message that arrives half an hour later confuses its reader.
    return NotificationService(options=dataclasses.replace(service_options(), max_attempts=1))


def _request(user: AbstractBaseUser, number: str, text: str = "", channel: str = "feishu") -> NotificationRequest:
    # Not a payload of an event: that names a user by an integer, and a test message is for any user.
    check = Check({"summary_text": text}, TEXT_LENGTHS)
    text = check.text("summary_text", TEXT_LENGTHS["summary_text"])
    check.raise_if_refused()
    key = str(user.pk)
    if len(key) > MAX_USER_KEY_CHARACTERS:
        key = hashlib.sha256(key.encode()).hexdigest()
    return NotificationRequest(
        user_id=user.pk,
        trigger_type=TEST_TRIGGER,
        preview_id="test",
        dedupe_key=f"{TEST_KEY_PREFIX}{key}:{number}",
        target_url="/",
        summary_text=text,
        fallback_text=_default_text(),
        channel=channel,
    )


def _default_text() -> str:
    return gettext("This is a test message: your channel works.")


def _wait_for_result(record_id: int) -> NotificationRecord:
    """Return the record as soon as it is final, or after TOTAL_TIMEOUT as it is.

    Another process may have claimed it first. It sends the message at once, for example beside other due records.
    """
    deadline = time.monotonic() + service_options().total_timeout
    while True:
        record = NotificationRecord.objects.get(pk=record_id)
        if record.status in FINAL or time.monotonic() >= deadline:
            return record
        time.sleep(POLL_INTERVAL_SECONDS)


def _store_test_result(result: HandleResult) -> NotificationRecord:
    """Store the result of a test with the channel, resume the channel if it worked, and return the record."""
    record = _wait_for_result(result.record_id)
    if record.status in FINAL:
        sent = record.status == Status.SENT
        rows = UserNotificationChannel.objects.of_record(record)
        rows.update(
            last_test_status=TestStatus.SUCCESS if sent else TestStatus.FAILED,
            last_test_error="" if sent else describe_error(record)[:191],
            last_test_at=Now(),
        )
        held_channels = rows.exclude(paused_at=None, probe_at=None).values_list("pk", flat=True)
        for channel_id in held_channels if sent else ():
            circuit_breaker.resume_channel(channel_id, service_options())
    return record
