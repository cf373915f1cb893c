"""The owner of a paused channel gets one mail for each pause, whichever process sends it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from smtplib import SMTPRecipientsRefused

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.utils import timezone

from notifications.models import UserNotificationChannel
from notifications.monitoring.alerting.dispatcher import evaluate
from notifications.monitoring.alerting.owner_emails import email_channel_owners

pytestmark = pytest.mark.django_db
Change = Callable[..., None]


@pytest.fixture(autouse=True)
def _sender(change: Change) -> None:
    change(OWNER_MAIL_FROM="notifications@example.com")


def paused(name: str = "somebody", **fields: object) -> UserNotificationChannel:
    user = get_user_model().objects.create_user(name, email=f"{name}@example.com")
    values = {"paused_at": timezone.now(), "pause_reason": "code 19001: invalid"} | fields
    return UserNotificationChannel.objects.create(user=user, **values)


def test_the_owner_gets_one_mail_with_the_reason_and_the_remedy() -> None:
    paused()

    evaluate()
    evaluate()

    [message] = mail.outbox
    assert message.to == ["somebody@example.com"]
    assert message.from_email == "notifications@example.com"
    assert "code 19001: invalid" in message.body
    assert "test message" in message.body


def test_a_second_pause_is_mailed_again() -> None:
    channel = paused()
    email_channel_owners()

    UserNotificationChannel.objects.filter(pk=channel.pk).update(paused_at=timezone.now() + timedelta(seconds=1))

    assert email_channel_owners() == 1


def test_the_owner_of_an_active_channel_gets_no_mail() -> None:
    paused(paused_at=None)

    assert email_channel_owners() == 0


def test_an_inactive_owner_gets_no_mail_if_messages_are_skipped_too(change: Change) -> None:
    channel = paused()
    get_user_model().objects.filter(notification_channels=channel).update(is_active=False)
    change(OWNER_MAIL_FROM="notifications@example.com", INACTIVE_USERS="skip")

    email_channel_owners()

    assert mail.outbox == []


def test_a_failed_mail_is_sent_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    paused()
    with monkeypatch.context() as broken:
        broken.setattr("notifications.monitoring.alerting.owner_emails.EmailMessage.send", lambda self: 1 / 0)
        assert email_channel_owners() == 0

    assert email_channel_owners() == 1
    assert len(mail.outbox) == 1


def test_a_refused_address_delays_no_other_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    paused("refused", paused_at=timezone.now() - timedelta(hours=1))
    paused("other")
    send = mail.EmailMessage.send

    def refuse(message: mail.EmailMessage) -> int:
        if message.to == ["refused@example.com"]:
            raise SMTPRecipientsRefused({"refused@example.com": (550, b"no such user")})
        return send(message)

    monkeypatch.setattr("notifications.monitoring.alerting.owner_emails.EmailMessage.send", refuse)

    assert email_channel_owners() == 1
    assert [message.to for message in mail.outbox] == [["other@example.com"]]


def test_an_owner_without_an_address_delays_no_other_owner() -> None:
    channel = paused("silent")
    get_user_model().objects.filter(notification_channels=channel).update(email="")
    paused("other")

    email_channel_owners()

    assert [message.to for message in mail.outbox] == [["other@example.com"]]


def test_no_mail_is_sent_without_owner_mail_from(change: Change) -> None:
    change(OWNER_MAIL_FROM="")
    paused()

    assert email_channel_owners() == 0
    assert mail.outbox == []


def test_the_mail_uses_the_language_of_alert_language(change: Change) -> None:
    change(OWNER_MAIL_FROM="notifications@example.com", ALERT_LANGUAGE="zh-hans")
    paused()

    email_channel_owners()

    assert mail.outbox[0].subject == "您的通知正在等待"
