"""A user whose channel was paused is told once, by whichever process looks first."""

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


def test_the_owner_is_told_once_what_happened_and_what_to_do() -> None:
    paused()

    evaluate()
    evaluate()

    [message] = mail.outbox
    assert message.to == ["somebody@example.com"]
    assert message.from_email == "notifications@example.com"
    assert "code 19001: invalid" in message.body
    assert "test message" in message.body


def test_a_second_pause_is_told_again() -> None:
    channel = paused()
    email_channel_owners()

    UserNotificationChannel.objects.filter(pk=channel.pk).update(paused_at=timezone.now() + timedelta(seconds=1))

    assert email_channel_owners() == 1


def test_a_channel_that_works_is_nobodys_concern() -> None:
    paused(paused_at=None)

    assert email_channel_owners() == 0


def test_a_mail_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    paused()
    with monkeypatch.context() as broken:
        broken.setattr("notifications.monitoring.alerting.owner_emails.EmailMessage.send", lambda self: 1 / 0)
        assert email_channel_owners() == 0

    assert email_channel_owners() == 1
    assert len(mail.outbox) == 1


def test_an_address_that_is_refused_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_owner_without_an_address_holds_up_nobody() -> None:
    channel = paused("silent")
    get_user_model().objects.filter(pk=channel.user_id).update(email="")
    paused("other")

    email_channel_owners()

    assert [message.to for message in mail.outbox] == [["other@example.com"]]


def test_without_a_sender_no_mail_goes_out(change: Change) -> None:
    change(OWNER_MAIL_FROM="")
    paused()

    assert email_channel_owners() == 0
    assert mail.outbox == []


def test_the_mail_comes_in_the_language_of_the_setting(change: Change) -> None:
    change(OWNER_MAIL_FROM="notifications@example.com", ALERT_LANGUAGE="zh-hans")
    paused()

    email_channel_owners()

    assert mail.outbox[0].subject == "您的通知正在等待"
