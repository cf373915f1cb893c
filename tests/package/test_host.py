"""The app in a project that has set no more than it must."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from dev.waiting import wait_until
from notifications.beat import DELIVER_DUE, beat_schedule
from notifications.testing.sandbox.server import Sandbox
from tests.support.host_project import CELERY, Host

PAYLOAD = """
from django.db import transaction
from django.utils import timezone
from django.contrib.auth import get_user_model
from notifications.api import request_notification
from notifications.models import NotificationRecord, UserNotificationChannel
def payload(user, key):
    return {"user_id": user, "dedupe_key": key, "preview_id": "p-1", "target_url": "/tasks/7", "summary_text": "moved",
            "requested_at": timezone.now()}
def statuses():
    return dict(NotificationRecord.objects.values_list("dedupe_key", "status"))
"""
ADMIN = """
from django.test import Client
def page(path):
    browser = Client(headers={"host": "localhost", "accept-language": "zh-hans"})
    browser.force_login(get_user_model().objects.get(is_superuser=True))
    response = browser.get(f"/admin/notifications/{path}", follow=True)
    assert response.status_code == 200, (path, response.status_code)
    return response.content.decode()
"""
OWN_USER = """
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models

class Person(AbstractBaseUser, PermissionsMixin):
    id = models.AutoField(primary_key=True)
    email = models.EmailField(unique=True)
    is_staff = models.BooleanField(default=False)
    USERNAME_FIELD = "email"
    objects = BaseUserManager()

    class Meta:
        app_label = "mysite"
"""


def test_has_nothing_to_complain_of_and_no_migration_is_missing(host: Host) -> None:
    assert "no issues" in host.manage("check", "--fail-level", "WARNING")
    assert "No changes detected" in host.manage("makemigrations", "--check")


def test_comes_from_the_wheel(host: Host, site_packages: Path) -> None:
    where = host.shell("import notifications; result = notifications.__file__")

    assert Path(where).is_relative_to(site_packages)


def test_what_commits_is_delivered_and_what_rolls_back_is_not(host: Host) -> None:
    stored, sent = host.shell(
        PAYLOAD
        + """
from notifications.testing import deliver_notifications, using_memory
with transaction.atomic():
    request_notification(payload(1001, "committed"))
try:
    with transaction.atomic():
        request_notification(payload(1001, "rolled back"))
        raise LookupError
except LookupError:
    pass
with using_memory() as provider:
    deliver_notifications()
result = [statuses(), [request.message_text for request in provider.requests if request.user_id == 1001]]
"""
    )

    assert stored["committed"] == "sent"
    assert "rolled back" not in stored
    assert sent == ["moved\n/tasks/7"]


def test_delivers_over_http_by_the_command_alone(host: Host) -> None:
    with Sandbox() as feishu:
        (host.folder / "mysite" / "with_sandbox.py").write_text(
            f"from mysite.settings import *\nNOTIFICATIONS |= {{'SANDBOX_ORIGINS': [{feishu.origin!r}]}}\n"
        )
        host.shell(
            PAYLOAD
            + f"""
bob = get_user_model().objects.create_user("bob")
UserNotificationChannel.objects.create(user=bob, webhook_url={feishu.webhook_url("bobskey01")!r})
request_notification(payload(bob.pk, "over http"))
"""
        )

        said = host.manage("deliver_due", "--settings", "mysite.with_sandbox")

        assert "  sent: 1\n" in said
        [arrived] = feishu.deliveries("bobskey01", accepted=True)
        assert "moved" in arrived.body["message"]["summary"]


def test_the_admin_shows_it_in_the_languages_of_the_project(host: Host) -> None:
    english, chinese = host.shell(
        PAYLOAD
        + """
from django.conf import settings
from django.test import override_settings
ada = get_user_model().objects.create_superuser("ada")
request_notification(payload(ada.pk, "seen"))
"""
        + ADMIN
        + """
def pages():
    record = NotificationRecord.objects.get(dedupe_key="seen")
    return "".join(map(page, ("notificationrecord/?q=ada", f"notificationrecord/{record.pk}/change/",
        "usernotificationchannel/", "usernotificationchannel/add/", "rejectedrequest/")))
english = pages()
with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]):
    result = [english, pages()]
"""
    )

    assert english.count("seen") >= 2
    assert "webhook address" in english.lower()
    assert "通知" not in english
    assert "通知" in chinese


def test_a_user_model_of_the_projects_own(site_packages: Path, tmp_path: Path) -> None:
    settings = "INSTALLED_APPS += ['mysite']\nAUTH_USER_MODEL = 'mysite.Person'\n"
    with Host.started(tmp_path, site_packages, settings=settings, models=OWN_USER) as host:
        host.manage("makemigrations", "mysite", "--verbosity", "0")
        host.manage("migrate", "--verbosity", "0")
        assert "no issues" in host.manage("check", "--fail-level", "WARNING")
        assert "No changes detected" in host.manage("makemigrations", "--check", "notifications")
        done = host.shell(
            PAYLOAD
            + """
from notifications.testing import assert_notified, deliver_notifications, using_memory
ada = get_user_model().objects.create(email="ada@example.com", is_staff=True, is_superuser=True)
request_notification(payload(ada.pk, "seen"))
with using_memory():
    deliver_notifications()
assert_notified(ada, status="sent")
"""
            + ADMIN
            + """
shown = page("notificationrecord/?q=ada@example.com")
result = ["ada@example.com" in shown, "seen" in shown, "new_webhook_url" in page("usernotificationchannel/add/")]
"""
        )

        assert done == [True, True, True]


@pytest.mark.parametrize("options", [{}, {"server_side_binding": True}], ids=str)
def test_the_other_driver_does_as_well(site_packages: Path, tmp_path: Path, options: dict[str, bool]) -> None:
    settings = f"DATABASES['default']['OPTIONS'] = {options}"
    with Host.started(tmp_path, site_packages, Path(sys.prefix) / "psycopg3", settings=settings) as host:
        host.manage("migrate", "--verbosity", "0")
        assert "notifications.W001" in host.manage("check", "--database", "default")

        done = host.shell(
            PAYLOAD
            + """
from datetime import timedelta
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from notifications.providers.base import SendResult
from notifications.testing import deliver_notifications, using_memory
ada = get_user_model().objects.create_superuser("ada")
request_notification(payload(ada.pk, "seen"))
with using_memory() as provider:
    provider.script(SendResult(outcome="temporary_fail", error_code="provider_5xx", response_payload={"code": 2200}))
    deliver_notifications()
    first = statuses()
    deliver_notifications(at=timezone.now() + timedelta(hours=1))
"""
            + ADMIN
            + """
record = NotificationRecord.objects.get()
pages = [page(f"notificationrecord/{path}") for path in ("", f"{record.pk}/change/", "?q=ada")]
shown = [page("") != "", *("seen" in text for text in pages)]
result = [is_psycopg3, first, statuses(), record.attempts.count(), *shown]
"""
        )

    assert done == [True, {"seen": "failed"}, {"seen": "sent"}, 2, True, True, True, True]


def test_a_celery_app_of_the_projects_own_delivers_from_its_default_queue(site_packages: Path, tmp_path: Path) -> None:
    redis_url = urlunsplit(urlsplit(os.environ["REDIS_URL"])._replace(path="/14"))
    settings = (
        "from notifications.beat import beat_schedule\n"
        f"CELERY_BROKER_URL = NOTIFICATIONS['REDIS_URL'] = {redis_url!r}\n"
        "CELERY_BEAT_SCHEDULE = {'mine': {'task': 'mine', 'schedule': 60}} | beat_schedule(NOTIFICATIONS)\n"
        "NOTIFICATIONS['PROVIDERS'] = {'feishu': 'notifications.providers.memory.MemoryProvider'}\n"
    )
    with Host.started(tmp_path, site_packages, settings=settings, celery=CELERY) as host:
        (tmp_path / "mysite" / "__init__.py").write_text("from mysite.celery import app as celery_app\n")
        host.manage("migrate", "--verbosity", "0")
        tasks = host.shell(
            "from mysite.celery import app\napp.loader.import_default_modules()\n"
            "result = [[entry['task'] in app.tasks, app.amqp.router.route(entry.get('options', {}), entry['task'])"
            "['queue'].name] for name, entry in app.conf.beat_schedule.items() if name != 'mine']"
        )
        assert tasks
        assert all(task == [True, "celery"] for task in tasks)

        command = [sys.executable, "-m", "celery", "-A", "mysite", "worker", "--concurrency", "1"]
        with (tmp_path / "log").open("wb") as log:
            worker = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=host.env | {"DJANGO_SETTINGS_MODULE": "mysite.settings"},
                stdout=log,
                stderr=log,
            )
        try:
            request = PAYLOAD + "with transaction.atomic(): request_notification(payload(1, 'by nudge'))"
            host.shell(request)
            look = PAYLOAD + "result = statuses()"
            wait_until(lambda: host.shell(look) == {"by nudge": "sent"}, lambda: (tmp_path / "log").read_text())
        finally:
            worker.terminate()
            worker.wait(60)


def test_the_database_scheduler_of_django_celery_beat_keeps_what_our_messages_need(
    site_packages: Path, tmp_path: Path
) -> None:
    redis_url = urlunsplit(urlsplit(os.environ["REDIS_URL"])._replace(path="/13"))
    settings = (
        "from notifications.beat import beat_schedule\n"
        "INSTALLED_APPS += ['django_celery_beat']\n"
        f"CELERY_BROKER_URL = NOTIFICATIONS['REDIS_URL'] = {redis_url!r}\n"
        "CELERY_BEAT_SCHEDULE = beat_schedule(NOTIFICATIONS)\n"
    )
    scheduler = Path(sys.prefix) / "celery-beat"
    with Host.started(tmp_path, site_packages, scheduler, settings=settings, celery=CELERY) as host:
        host.manage("migrate", "--verbosity", "0")
        sent = host.shell(
            """
import json, redis
from mysite.celery import app
from django_celery_beat.schedulers import DatabaseScheduler
with redis.Redis.from_url(app.conf.broker_url) as queues:
    queues.flushdb()
    scheduler = DatabaseScheduler(app=app)
    for name, entry in scheduler.schedule.items():
        if name in app.conf.beat_schedule:
            scheduler.apply_async(entry, advance=False)
    headers = [json.loads(message)["headers"] for message in queues.lrange("celery", 0, -1)]
    queues.flushdb()
result = {one["task"]: [one.get("period"), one.get("by_beat"), one["expires"]] for one in headers}
"""
        )

    entries = beat_schedule().values()
    assert sent == {
        entry["task"]: [entry["schedule"], True if entry["task"] == DELIVER_DUE else None, None] for entry in entries
    }
