"""Another team's project with the app from its wheel: it sends nothing in SmartMate's name."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.support.host_project import CELERY, Host

SEND_ON_EVERY_CHANNEL = """
import json, logging
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone
from notifications import tasks
from notifications.api import request_notification
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.testing import using_sandbox, deliver_notifications
from notifications.web_api import api

PATHS = {
    "feishu": "/flow/api/trigger-webhook/", "feishu_bot": "/open-apis/bot/v2/hook/",
    "feishu_base": "/base/automation/webhook/event/", "webhook": "/webhook/", "email": "",
}
ALERTS = {"ALERT_EMAILS": ["ops@example.com"], "OWNER_MAIL_FROM": "noreply@example.com"}
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
logging.disable()  # alerts are logged too, and nothing else may be printed
mail.outbox = []
result = {"statuses": {}}
with using_sandbox() as sandbox, override_settings(EMAIL_BACKEND=LOCMEM):
    eve = get_user_model().objects.create_user("eve", email="eve@example.com")
    for channel, path in PATHS.items():
        UserNotificationChannel.objects.create(
            user=eve, channel=channel, webhook_url=f"{sandbox.origin}{path}{channel}key" if path else "",
            **({"auth_type": "signature", "bearer_token": "whsec_" + "A" * 32} if channel == "webhook" else {}),
        )
        fields = {"user_id": eve.pk, "preview_id": "p-1", "target_url": "/tasks/7", "requested_at": timezone.now()}
        request_notification(fields | {"dedupe_key": "text", "summary_text": "moved"}, channel=channel)
        request_notification(fields | {"dedupe_key": "no text"}, channel=channel)
    deliver_notifications()
    for channel, status in NotificationRecord.objects.values_list("channel", "status"):
        result["statuses"].setdefault(channel, []).append(status)
    for channel in PATHS:
        call_command("send_test_notification", "eve", channel=channel, stdout=open("/dev/null", "w"))
    result["mails"] = len(mail.outbox)
    NotificationRecord.objects.filter(channel="email").update(status="dead", last_error_code="provider_config")
    UserNotificationChannel.objects.filter(channel="email").update(paused_at=timezone.now(), pause_reason="code 1")
    bot = f"{sandbox.origin}/open-apis/bot/v2/hook/alertskey"
    with override_settings(NOTIFICATIONS=settings.NOTIFICATIONS | ALERTS | {"ALERT_FEISHU_WEBHOOK": bot}):
        tasks.watch.run()
    result["alert_mails"] = len(mail.outbox) - result["mails"]
    result["posted"] = [[each.key, each.headers, each.body] for each in sandbox.deliveries()]
    result["texts"] = [str(message.message()) for message in mail.outbox]
    result["subjects"] = [message.subject for message in mail.outbox]
    result["api"] = json.loads(json.dumps(api.get_openapi_schema(path_prefix="api/")))
"""


def test_nothing_it_sends_has_the_name_or_the_texts_of_smartmate(site_packages: Path, tmp_path: Path) -> None:
    settings = "NOTIFICATIONS['RATE_LIMITS'] = {'feishu_bot': '', 'feishu_base': ''}\n"  # nothing waits
    with Host.started(tmp_path, site_packages, settings=settings) as host:
        host.manage("migrate", "--verbosity", "0")

        sent = host.shell(SEND_ON_EVERY_CHANNEL)

    channels = ("feishu", "feishu_bot", "feishu_base", "webhook", "email")
    assert sent["statuses"] == {channel: ["sent", "sent"] for channel in channels}
    keys = [key for key, _headers, _body in sent["posted"]]
    posting = [f"{channel}key" for channel in channels[:-1]]
    assert {key: keys.count(key) for key in posting} == dict.fromkeys(posting, 3)
    assert keys.count("alertskey") == sent["alert_mails"] - 1  # the last mail is to the owner of the paused channel
    assert sent["mails"] == 3
    assert {headers["User-Agent"] for _key, headers, _body in sent["posted"]} == {"Notifications"}
    assert sent["subjects"][:3] == ["Notification"] * 3
    assert sent["api"]["info"]["title"] == "Notifications"
    everything = json.dumps(sent, ensure_ascii=False)
    assert "You have a new notification." in everything
    assert re.findall(r".{0,40}(?:smartmate|日程|查看).{0,20}", everything, re.IGNORECASE) == []


def test_its_own_name_and_texts_are_used(site_packages: Path, tmp_path: Path) -> None:
    settings = (
        "NOTIFICATIONS |= {'PROJECT_NAME': 'Planner', 'MESSAGE_TITLE': 'Your plan', 'FALLBACK_TEXT': 'Look at it.'}\n"
        "NOTIFICATIONS['PROVIDERS'] = {'feishu': {\n"
        "    'BACKEND': 'notifications.providers.feishu.flow.FeishuFlowProvider',\n"
        "    'OPTIONS': {'event': 'planner.changed', 'action_text': 'Show'},\n"
        "}}\n"
    )
    code = """
from django.contrib.auth import get_user_model
from django.utils import timezone
from notifications.api import request_notification
from notifications.models import UserNotificationChannel
from notifications.testing import deliver_notifications, using_sandbox
with using_sandbox() as sandbox:
    eve = get_user_model().objects.create_user("eve")
    UserNotificationChannel.objects.create(user=eve, webhook_url=sandbox.webhook_url("eveskey01"))
    request_notification({
        "user_id": eve.pk, "preview_id": "p", "dedupe_key": "k", "target_url": "/x", "requested_at": timezone.now()
    })
    deliver_notifications()
    [arrived] = sandbox.deliveries()
    result = [arrived.headers["User-Agent"], arrived.body["event"], arrived.body["message"]]
"""
    with Host.started(tmp_path, site_packages, settings=settings) as host:
        host.manage("migrate", "--verbosity", "0")
        assert "no issues" in host.manage("check", "--fail-level", "WARNING")

        user_agent, event, message = host.shell(code)

    assert (user_agent, event) == ("Planner-Notifications", "planner.changed")
    expected = {"title": "Your plan", "summary": "Look at it.\n/x", "action_text": "Show", "action_url": "/x"}
    assert message == expected


WITHOUT_ADMIN = """
INSTALLED_APPS.remove('django.contrib.admin')
NOTIFICATIONS['PROVIDERS'] = {'feishu': 'notifications.providers.memory.MemoryProvider'}
"""
COMMANDS = (
    ("deliver", "--help"),  # these two run until they are stopped
    ("run_workers", "--help"),
    ("deliver_due",),
    ("notifications_doctor",),
    ("purge_notifications", "--days", "30"),
    ("replay_notifications", "--code", "provider_config", "--reason", "fixed", "--actor", "eve"),
    ("redact_stored_answers",),
    ("rotate_notification_keys",),
    ("send_test_notification", "eve"),
)
ONE_DEAD = """
from django.contrib.auth import get_user_model
from notifications.models import NotificationRecord
eve = get_user_model().objects.create_user("eve")
NotificationRecord.objects.create(
    user=eve, channel="feishu", dedupe_key="k", status="dead", last_error_code="provider_config", max_attempts=5,
    next_attempt_at=None,
)
"""
ROUNDS = """
from notifications.models import NotificationRecord
result = list(NotificationRecord.objects.filter(dedupe_key="k").values_list("status", "round"))
"""


def test_every_command_works_without_djangos_admin(site_packages: Path, tmp_path: Path) -> None:
    redis_url = urlunsplit(urlsplit(os.environ["REDIS_URL"])._replace(path="/14"))
    settings = f"{WITHOUT_ADMIN}CELERY_BROKER_URL = NOTIFICATIONS['REDIS_URL'] = {redis_url!r}\n"
    with Host.started(tmp_path, site_packages, settings=settings, urls="urlpatterns = []\n", celery=CELERY) as host:
        (tmp_path / "mysite" / "__init__.py").write_text("from mysite.celery import app as celery_app\n")
        host.manage("migrate", "--verbosity", "0")
        assert "notifications.I002" in host.manage("check", "--deploy", "--fail-level", "ERROR")
        installed = Path(site_packages / "notifications" / "management" / "commands").glob("[!_]*.py")
        assert {path.stem for path in installed} == {command[0] for command in COMMANDS}
        host.shell(ONE_DEAD)

        for command in COMMANDS:
            host.manage(*command)

        assert host.shell(ROUNDS) == [["pending", 1]]
