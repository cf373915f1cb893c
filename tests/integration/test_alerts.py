"""A person is told once about what needs one, by every sink, whoever looks and whatever fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test import Client
from django.utils import timezone

from notifications import tasks
from notifications.management.commands._base import StopSignal
from notifications.models import Alert, Heartbeat, NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.monitoring.alerting.dispatcher import alert_sent, evaluate
from notifications.monitoring.alerting.rules import findings
from notifications.states import HeartbeatKind, Status
from notifications.telemetry import heartbeats
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
KEY = "canary-0123456789"


class Bot:
    """A custom bot on the loopback. It answers when it may."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.answer: tuple[int, bytes] = (200, b'{"code": 0, "msg": "success"}')
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        bot = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert body["msg_type"] == "text"
                bot.texts.append(body["content"]["text"])
                bot.asked.set()
                bot.may_answer.wait(PATIENCE)
                status, content = bot.answer
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Answer whoever waits, and end."""
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def options(self) -> dict[str, Any]:
        """What to set so that it is told."""
        url = f"{self.origin}/open-apis/bot/v2/hook/{KEY}"
        return {"ALERT_FEISHU_WEBHOOK": url, "SANDBOX_ORIGINS": [self.origin]}


@pytest.fixture
def bot(change: Callable[..., None]) -> Iterator[Bot]:
    """A bot that is told."""
    bot = Bot()
    change(**bot.options)
    yield bot
    bot.close()


@pytest.fixture
def mailbox(change: Callable[..., None]) -> list[Any]:
    """The mails that were sent to the two who are told."""
    change(ALERT_EMAILS=["ops@example.com", "more@example.com"])
    return mail.outbox


def later(**delta: float) -> None:
    """Let so much time have passed since everything that was noted."""
    ago = timedelta(**delta)
    Alert.objects.update(
        first_seen=F("first_seen") - ago, last_seen=F("last_seen") - ago, sent_at=F("sent_at") - ago,
        resolved_at=F("resolved_at") - ago, resolution_sent_at=F("resolution_sent_at") - ago,
        claimed_until=F("claimed_until") - ago,
    )  # fmt: skip
    NotificationRecord.objects.update(updated_at=F("updated_at") - ago)
    RejectedRequest.objects.update(created_at=F("created_at") - ago)
    UserNotificationChannel.objects.update(paused_at=F("paused_at") - ago)


def look_elsewhere(bot: Bot, **more: Any) -> subprocess.Popen[bytes]:
    """Start another process that looks once."""
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "smartmate.settings",
        "NOTIFICATIONS_ALERT_FEISHU_WEBHOOK": bot.options["ALERT_FEISHU_WEBHOOK"],
        "NOTIFICATIONS_SANDBOX_ORIGINS": bot.origin,
        "DATABASE_URL": os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{connection.settings_dict['NAME']}",
    }
    program = (
        "import django; django.setup()\nfrom notifications.monitoring.alerting.dispatcher import evaluate\nevaluate()"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=env, **more)


def test_nothing_is_told_while_all_is_well(bot: Bot, mailbox: list[Any]) -> None:
    make_record(Status.SENT)
    make_record(Status.PENDING)

    evaluate()

    assert (bot.texts, mailbox, Alert.objects.count()) == ([], [], 0)


def test_a_death_is_told_once_by_every_sink_and_cleared_when_no_more_die(bot: Bot, mailbox: list[Any]) -> None:
    make_record(Status.DEAD)
    make_record(Status.DEAD)
    for _ in range(3):
        evaluate()
    make_record(Status.DEAD)
    evaluate()

    [text] = bot.texts
    [message] = mailbox
    assert "2 notifications on feishu died: provider_config" in text
    assert message.subject == "SmartMate: 2 notifications on feishu died: provider_config"
    assert message.to == ["ops@example.com", "more@example.com"]

    later(seconds=3601)
    evaluate()
    evaluate()

    assert len(bot.texts) == len(mailbox) == 2
    assert "All clear: 3 notifications on feishu died" in bot.texts[1]


def test_each_cause_is_told_for_itself(bot: Bot) -> None:
    make_record(Status.DEAD, last_error_code="provider_config")
    make_record(Status.DEAD, last_error_code="provider_auth_failed")

    evaluate()

    assert len(bot.texts) == 2


def test_what_lasts_is_told_again_once_in_a_window(bot: Bot) -> None:
    make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(days=1))
    evaluate()
    later(minutes=59)
    evaluate()
    assert len(bot.texts) == 1

    later(minutes=2)
    evaluate()
    evaluate()

    assert len(bot.texts) == 2


def test_what_comes_and_goes_is_told_once_in_a_window(bot: Bot) -> None:
    for _ in range(3):
        record = make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(hours=1))
        evaluate()
        record.delete()
        evaluate()

    assert len(bot.texts) == 2
    assert bot.texts[1].startswith("SmartMate: All clear")


def test_every_kind_of_trouble_is_found(bot: Bot, make_user: Callable[..., Any]) -> None:
    make_record(Status.DEAD)
    make_record(Status.FAILED, next_attempt_at=timezone.now() - timedelta(seconds=301))
    RejectedRequest.objects.create(source="here", payload="{}", errors=[])
    UserNotificationChannel.objects.create(user=make_user(), channel="feishu", paused_at=timezone.now())
    heartbeats.write_heartbeat(HeartbeatKind.SWEEP)
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(seconds=181))

    assert sorted(one.cause for one in findings()) == [
        "dead:feishu:provider_config",
        "late",
        "paused:feishu",
        "rejected",
        "sweep",
    ]
    evaluate()

    told = "".join(bot.texts)
    for words in ("died", r"due for \d{3} s", "1 request was refused", "was paused", r"last sweep ended \d{3} s ago"):
        assert re.search(words, told)


def test_a_site_that_was_never_swept_is_new_and_no_trouble() -> None:
    assert list(findings()) == []


def test_two_processes_that_look_at_once_tell_once(bot: Bot) -> None:
    make_record(Status.DEAD)
    bot.may_answer.clear()
    first = look_elsewhere(bot)
    assert bot.asked.wait(PATIENCE)

    second = look_elsewhere(bot)

    assert second.wait(PATIENCE) == 0
    bot.may_answer.set()
    assert first.wait(PATIENCE) == 0
    assert len(bot.texts) == 1


def test_a_process_that_dies_while_it_tells_leaves_it_to_the_next(bot: Bot) -> None:
    make_record(Status.DEAD)
    bot.may_answer.clear()
    first = look_elsewhere(bot)
    assert bot.asked.wait(PATIENCE)
    first.kill()
    first.wait(PATIENCE)
    bot.may_answer.set()

    evaluate()
    assert len(bot.texts) == 1  # it may still be telling
    later(seconds=61)
    evaluate()

    assert len(bot.texts) == 2


@pytest.mark.parametrize("answer", [(500, b""), (200, b'{"code": 19001}'), (200, b"no json"), (200, b"[]"), (302, b"")])
def test_a_sink_that_fails_is_asked_again_and_holds_no_other_back(
    bot: Bot, mailbox: list[Any], answer: tuple[int, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    make_record(Status.DEAD)
    good, bot.answer = bot.answer, answer
    evaluate()
    later(seconds=3601)  # by now it is over, but nobody in the group knows
    evaluate()
    assert [message.subject.startswith("SmartMate: All clear") for message in mailbox] == [False, True]

    bot.answer = good
    evaluate()
    evaluate()

    assert [text.startswith("SmartMate: All clear") for text in bot.texts] == [False, False, False, True]
    assert len(mailbox) == 2
    assert "nobody told by feishu" in caplog.text
    assert KEY not in caplog.text


def test_a_mail_server_that_is_away_leaves_it_owed(
    mailbox: list[Any], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_record(Status.DEAD)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    evaluate()
    assert "nobody told by email: ConnectionRefusedError" in caplog.text

    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    evaluate()

    assert len(mailbox) == 1


def test_other_code_can_listen() -> None:
    heard: list[dict[str, Any]] = []

    def listen(**kwargs: Any) -> None:
        heard.append(kwargs)
        raise RuntimeError("and fail")

    alert_sent.connect(listen)
    try:
        make_record(Status.DEAD)
        evaluate()
        evaluate()
        later(seconds=3601)
        evaluate()
    finally:
        alert_sent.disconnect(listen)

    assert [(one["cause"], one["kind"], one["count"], one["cleared"]) for one in heard] == [
        ("dead:feishu:provider_config", "dead", 1, False),
        ("dead:feishu:provider_config", "dead", 1, True),
    ]


def test_alerts_come_in_the_language_of_the_setting(bot: Bot, change: Callable[..., None]) -> None:
    change(ALERT_LANGUAGE="zh-hans")
    make_record(Status.DEAD)

    evaluate()

    assert "died" not in bot.texts[0]


def test_an_address_that_is_no_bots_is_not_called(
    change: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    change(ALERT_FEISHU_WEBHOOK=f"https://example.com/open-apis/bot/v2/hook/{KEY}")
    make_record(Status.DEAD)

    evaluate()

    assert "ALERT_FEISHU_WEBHOOK must be on open.feishu.cn or open.larksuite.com" in caplog.text


def test_the_periodic_task_looks(bot: Bot) -> None:
    make_record(Status.DEAD)

    tasks.watch()

    assert len(bot.texts) == 1


def test_with_beat_gone_whoever_asks_for_readiness_makes_us_look(bot: Bot, client: Client) -> None:
    heartbeats.write_heartbeat(HeartbeatKind.SWEEP)
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(seconds=200))

    for _ in range(3):
        assert client.get("/readyz").status_code == 503

    assert len(bot.texts) == 1


def test_the_command_looks_while_it_runs(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record(Status.DEAD)
    monkeypatch.setattr(StopSignal, "wait", lambda stop, seconds: stop.request())

    call_command("deliver_due", "--forever", verbosity=0)

    assert len(bot.texts) == 1
