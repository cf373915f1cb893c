"""An alert is sent once by each receiver, whichever process evaluates and whatever fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from notifications import tasks
from notifications.management.commands._base import StopSignal
from notifications.models import Alert, Heartbeat, RejectedRequest, UserNotificationChannel
from notifications.monitoring.alerting.dispatcher import PostgresqlAway, alert_sent, evaluate
from notifications.monitoring.alerting.rules import active_alerts
from notifications.monitoring.conditions import evaluate_conditions
from notifications.monitoring.indicators import Indicators
from notifications.providers.feishu.bot import sign_message
from notifications.states import HeartbeatKind, Status
from notifications.telemetry import heartbeats
from tests.support.alert_bot import BOT_KEY, TIMEOUT_SECONDS, AlertBot, move_times_back
from tests.support.factories import make_record
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def bot(change: Callable[..., None]) -> Iterator[AlertBot]:
    """A bot that receives the alerts."""
    bot = AlertBot()
    change(**bot.options)
    yield bot
    bot.close()


@pytest.fixture
def mailbox(change: Callable[..., None]) -> list[Any]:
    """The mails to the two addresses that receive the alerts."""
    change(ALERT_EMAILS=["ops@example.com", "more@example.com"])
    return mail.outbox


def evaluate_in_another_process(bot: AlertBot) -> subprocess.Popen[bytes]:
    """Start another process that evaluates once."""
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "smartmate.settings",
        "NOTIFICATIONS_ALERT_FEISHU_WEBHOOK": bot.options["ALERT_FEISHU_WEBHOOK"],
        "NOTIFICATIONS_SANDBOX_ORIGINS": bot.origin,
        "DATABASE_URL": os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{connection.settings_dict['NAME']}",
    }
    program = (
        "import django; django.setup()\nfrom notifications.monitoring.alerting.dispatcher import evaluate\nevaluate()"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=env)


def test_no_alert_is_sent_without_a_condition(bot: AlertBot, mailbox: list[Any]) -> None:
    make_record(Status.SENT)
    make_record(Status.PENDING)

    evaluate()

    assert (bot.texts, mailbox, Alert.objects.count()) == ([], [], 0)


def test_dead_notifications_are_sent_once_by_each_receiver_and_resolved_an_interval_later(
    bot: AlertBot, mailbox: list[Any]
) -> None:
    make_record(Status.DEAD)
    make_record(Status.DEAD)
    for _ in range(3):
        evaluate()
    make_record(Status.DEAD)
    evaluate()

    [text] = bot.texts
    [message] = mailbox
    assert "2 notifications on feishu became dead: provider_config" in text
    assert message.subject == "SmartMate: 2 notifications on feishu became dead: provider_config"
    assert message.to == ["ops@example.com", "more@example.com"]

    move_times_back(seconds=3601)
    evaluate()
    evaluate()

    assert len(bot.texts) == len(mailbox) == 2
    assert "Resolved: 3 notifications on feishu became dead" in bot.texts[1]


def test_each_cause_is_an_alert_of_its_own(bot: AlertBot) -> None:
    make_record(Status.DEAD, last_error_code="provider_config")
    make_record(Status.DEAD, last_error_code="provider_auth_failed")

    evaluate()

    assert len(bot.texts) == 2


def test_a_lasting_alert_is_sent_once_per_repeat_interval(bot: AlertBot) -> None:
    make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(days=1))
    evaluate()
    move_times_back(minutes=59)
    evaluate()
    assert len(bot.texts) == 1

    move_times_back(minutes=2)
    evaluate()
    evaluate()

    assert len(bot.texts) == 2


def test_a_flapping_alert_is_sent_once_per_repeat_interval(bot: AlertBot) -> None:
    for _ in range(3):
        record = make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(hours=1))
        evaluate()
        record.delete()
        evaluate()

    assert len(bot.texts) == 2
    assert bot.texts[1].startswith("SmartMate: Resolved")


def test_each_kind_of_alert_has_its_message(bot: AlertBot, make_user: Callable[..., Any]) -> None:
    make_record(Status.DEAD)
    make_record(Status.FAILED, next_attempt_at=timezone.now() - timedelta(seconds=301))
    RejectedRequest.objects.create(source="here", payload="{}", errors=[])
    UserNotificationChannel.objects.create(user=make_user(), channel="feishu", paused_at=timezone.now())
    heartbeats.write_heartbeat(HeartbeatKind.SWEEP)
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(seconds=181))

    assert sorted(alert.cause for alert in active_alerts(evaluate_conditions(Indicators()))) == [
        "dead:feishu:provider_config",
        "late",
        "paused:feishu",
        "rejected",
        "sweep",
    ]
    evaluate()

    texts = "".join(bot.texts)
    for words in (
        "became dead", r"due for \d{3} s", "1 request was rejected", "was paused", r"last sweep finished \d{3} s ago"
    ):  # fmt: skip
        assert re.search(words, texts), words


def test_a_new_site_without_heartbeats_has_no_alert() -> None:
    assert list(active_alerts(evaluate_conditions(Indicators()))) == []


def test_a_resolved_alert_of_the_last_version_is_sent_from_its_stored_details(bot: AlertBot) -> None:
    long_ago = timezone.now() - timedelta(minutes=5)
    Alert.objects.create(
        cause="late", receiver="feishu", kind="late", count=1, details={"seconds": 400},
        first_seen=long_ago, last_seen=long_ago, sent_at=long_ago,
    )  # fmt: skip

    evaluate()

    assert "Resolved: A notification has been due for 400 s" in bot.texts[0]


def test_a_failed_query_resolves_no_alert(bot: AlertBot) -> None:
    make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(hours=1))
    evaluate()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notification_records RENAME TO elsewhere")
    try:
        with pytest.raises(PostgresqlAway):
            evaluate()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO notification_records")

    assert not Alert.objects.filter(resolved_at__isnull=False).exists()
    assert len(bot.texts) == 1


@pytest.mark.processes
def test_two_processes_that_evaluate_at_once_send_once(bot: AlertBot) -> None:
    make_record(Status.DEAD)
    bot.may_answer.clear()
    first = evaluate_in_another_process(bot)
    assert bot.asked.wait(TIMEOUT_SECONDS)

    second = evaluate_in_another_process(bot)

    assert second.wait(TIMEOUT_SECONDS) == 0
    bot.may_answer.set()
    assert first.wait(TIMEOUT_SECONDS) == 0
    assert len(bot.texts) == 1


@pytest.mark.processes
def test_an_alert_of_a_killed_process_is_sent_by_the_next_one(bot: AlertBot) -> None:
    make_record(Status.DEAD)
    bot.may_answer.clear()
    first = evaluate_in_another_process(bot)
    assert bot.asked.wait(TIMEOUT_SECONDS)
    first.kill()
    first.wait(TIMEOUT_SECONDS)
    bot.may_answer.set()

    evaluate()
    assert len(bot.texts) == 1  # the killed process may have sent it
    move_times_back(seconds=61)
    evaluate()

    assert len(bot.texts) == 2


FAILED_ANSWERS = [
    (500, b""),
    (200, b'{"code": 19001}'),
    (200, b'{"code": null, "StatusCode": 19001}'),
    (200, b"<html>"),
    (302, b""),
]
ACCEPTING_ANSWERS = [b"", b"{}", b'{"StatusCode": 0}', b'\xef\xbb\xbf{"code": 0}']


def test_each_failed_answer_of_the_bot_is_an_error_without_secrets(
    bot: AlertBot, caplog: pytest.LogCaptureFixture
) -> None:
    make_record(Status.DEAD)
    for answer in FAILED_ANSWERS:
        bot.answer = answer
        caplog.clear()

        evaluate()

        assert "alert not sent by feishu" in caplog.text, answer
        assert BOT_KEY not in caplog.text, answer
    assert len(bot.texts) == len(FAILED_ANSWERS)


def test_an_answer_that_proves_acceptance_for_notifications_proves_it_for_alerts(bot: AlertBot) -> None:
    for sent, answer in enumerate(ACCEPTING_ANSWERS, 1):
        bot.answer = (200, answer)
        Alert.objects.all().delete()
        make_record(Status.DEAD)

        evaluate()
        move_times_back(seconds=61)
        evaluate()

        assert len(bot.texts) == sent, answer


def test_a_failing_receiver_is_retried_and_delays_no_other(bot: AlertBot, mailbox: list[Any]) -> None:
    make_record(Status.DEAD)
    success, bot.answer = bot.answer, (500, b"")
    evaluate()
    move_times_back(seconds=3601)  # it is over now, but the group was never told
    evaluate()
    assert [message.subject.startswith("SmartMate: Resolved") for message in mailbox] == [False, True]

    bot.answer = success
    evaluate()
    evaluate()

    assert [text.startswith("SmartMate: Resolved") for text in bot.texts] == [False, False, False, True]
    assert len(mailbox) == 2


def test_an_alert_is_sent_again_when_the_mail_server_is_back(
    mailbox: list[Any], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_record(Status.DEAD)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    evaluate()
    assert "alert not sent by email: ConnectionRefusedError" in caplog.text

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    evaluate()

    assert len(mailbox) == 1


def test_the_signal_is_sent_once_even_if_a_listener_fails() -> None:
    calls: list[dict[str, Any]] = []

    def listen(**kwargs: Any) -> None:
        calls.append(kwargs)
        raise RuntimeError("and fail")

    alert_sent.connect(listen)
    try:
        make_record(Status.DEAD)
        evaluate()
        evaluate()
        move_times_back(seconds=3601)
        evaluate()
    finally:
        alert_sent.disconnect(listen)

    assert [(call["cause"], call["kind"], call["count"], call["cleared"]) for call in calls] == [
        ("dead:feishu:provider_config", "dead", 1, False),
        ("dead:feishu:provider_config", "dead", 1, True),
    ]


def test_alerts_use_the_language_of_alert_language(bot: AlertBot, change: Callable[..., None]) -> None:
    change(ALERT_LANGUAGE="zh-hans")
    make_record(Status.DEAD)

    evaluate()

    assert "Since" not in bot.texts[0]


def test_a_webhook_that_is_not_a_bot_is_not_called(
    change: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    change(ALERT_FEISHU_WEBHOOK=f"https://example.com/open-apis/bot/v2/hook/{BOT_KEY}")
    make_record(Status.DEAD)

    evaluate()

    assert "ALERT_FEISHU_WEBHOOK must be on open.feishu.cn, open.larksuite.com or open.larkoffice.com" in caplog.text


@pytest.mark.parametrize("secret", ["", "canary-secret-of-the-bot"])
def test_an_alert_is_signed_if_the_bot_has_a_secret(
    bot: AlertBot, change: Callable[..., None], caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    change(**bot.options, ALERT_FEISHU_SECRET=secret)
    make_record(Status.DEAD)

    evaluate()

    [body] = bot.bodies
    message = {name: body[name] for name in ("msg_type", "content")}
    assert body == sign_message(message, secret, float(body.get("timestamp", 0)))
    assert ("sign" in body) == bool(secret)
    assert "canary" not in caplog.text


def test_a_refused_signature_is_made_once_more_and_never_logged(
    bot: AlertBot, change: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    change(**bot.options, ALERT_FEISHU_SECRET="canary-secret-of-the-bot")
    bot.answer = (200, b'{"code": 19021, "msg": "sign match fail"}')
    make_record(Status.DEAD)

    evaluate()

    assert len(bot.bodies) == 2
    assert "19021" in caplog.text
    assert "canary-secret" not in caplog.text


def test_the_periodic_task_evaluates(bot: AlertBot) -> None:
    make_record(Status.DEAD)

    tasks.watch()

    assert len(bot.texts) == 1


def test_readyz_evaluates_when_beat_is_gone(bot: AlertBot, client: Client) -> None:
    heartbeats.write_heartbeat(HeartbeatKind.SWEEP)
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(seconds=200))

    for _ in range(3):
        assert client.get("/readyz").status_code == 503

    assert len(bot.texts) == 1


def test_the_command_evaluates_while_it_runs(bot: AlertBot, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record(Status.DEAD)
    monkeypatch.setattr(StopSignal, "wait", lambda stop, seconds: stop.request())

    call_command("deliver_due", "--forever", verbosity=0)

    assert len(bot.texts) == 1
