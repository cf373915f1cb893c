"""Projects whose users have no integer keys: UUIDs, or texts of any kind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support.host_project import CELERY, Host

USER = """
import uuid
from django.contrib.auth.models import AbstractUser
from django.db import models

class Person(AbstractUser):
    {key}

    class Meta:
        app_label = "mysite"
"""
UUID_KEY = "id = models.UUIDField(primary_key=True, default=uuid.uuid4)"
TEXT_KEY = "code = models.CharField(primary_key=True, max_length=120)"
KEYS = {
    UUID_KEY: [f"5f1c0f9e-6b0a-4b8e-9d53-{number:012d}" for number in range(1, 5)],
    # What an address, a query string, a label of a metric or a cast to a shorter column would change.
    TEXT_KEY: ['staff/anna "ü" & 1%_', "None", "7", "x" * 120],
}
URLS = """
from django.contrib import admin
from django.urls import include, path
from notifications.web_api import api
urlpatterns = [path("admin/", admin.site.urls), path("api/", api.urls)]
"""
SETTINGS = """
from notifications.beat import beat_schedule
INSTALLED_APPS += ['mysite']
AUTH_USER_MODEL = 'mysite.Person'
ROOT_URLCONF = 'mysite.urls'
ALLOWED_HOSTS = ['localhost']
CELERY_BROKER_URL = NOTIFICATIONS['REDIS_URL'] = {redis!r}
CELERY_BEAT_SCHEDULE = beat_schedule(NOTIFICATIONS)
NOTIFICATIONS |= {{'INACTIVE_USERS': 'skip', 'RATE_LIMITS': {{}}, 'OWNER_MAIL_FROM': 'noreply@example.com'}}
"""
PRELUDE = """
import io, json, logging, uuid
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from notifications.conf import service_options
from notifications.ingest.insert import insert_requests
from notifications.ingest.payload import NotificationRequest
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.testing import assert_notified, deliver_notifications, using_memory, using_sandbox
Person = get_user_model()
def request(user, key, **fields):
    return NotificationRequest(user_id=user, preview_id="p-1", dedupe_key=key, target_url="/x", summary_text="moved",
                               **fields)
def insert(*requests):
    return insert_requests(requests, options=service_options())
def statuses():
    return dict(NotificationRecord.objects.values_list("dedupe_key", "status"))
"""


class Project:
    """A host project and the keys of its users ada, bob, eve and zoe."""

    def __init__(self, host: Host, keys: list[str]) -> None:
        self.host = host
        self.keys = keys

    def run(self, code: str) -> Any:
        """Run code in the project; `keys` has the users' keys as texts."""
        return self.host.shell(f"{PRELUDE}\nkeys = {self.keys!r}\n{code}")


@pytest.fixture(scope="module", params=[UUID_KEY, TEXT_KEY], ids=["uuid", "text"])
def project(
    request: pytest.FixtureRequest, site_packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A migrated project with four users."""
    folder = tmp_path_factory.mktemp("keys")
    settings = SETTINGS.format(redis=urlunsplit(urlsplit(os.environ["REDIS_URL"])._replace(path="/12")))
    modules = {"models": USER.format(key=request.param), "urls": URLS, "celery": CELERY}
    with Host.started(folder, site_packages, settings=settings, **modules) as host:
        (folder / "mysite" / "__init__.py").write_text("from mysite.celery import app as celery_app\n")
        host.manage("makemigrations", "mysite", "--verbosity", "0")
        host.manage("migrate", "--verbosity", "0")
        project = Project(host, KEYS[request.param])
        project.run("""
for name, key in zip(("ada", "bob", "eve", "zoe"), keys):
    Person.objects.create(pk=key, username=name, email=f"{name}@example.com", is_staff=True, is_superuser=True)
""")
        yield project


def test_the_project_passes_its_checks_and_no_migration_is_missing(project: Project) -> None:
    assert "no issues" in project.host.manage("check", "--fail-level", "WARNING")
    assert "No changes detected" in project.host.manage("makemigrations", "--check")


def test_a_request_is_stored_under_the_key_and_a_duplicate_of_its_user_is_none_of_another(project: Project) -> None:
    first, again, conflict, stored = project.run("""
from notifications.api import DedupeConflict
ada, bob = (Person.objects.get(username=name) for name in ("ada", "bob"))
[first] = insert(request(ada.pk, "stored"))
[again] = insert(request(keys[0], "stored"))
try:
    insert(request(keys[1], "stored"))
    conflict = ""
except DedupeConflict as error:
    conflict = str(error)
record = assert_notified(ada, dedupe_key="stored")
assert record == assert_notified(keys[0], dedupe_key="stored") == assert_notified(ada.pk, dedupe_key="stored")
result = [first.reused, again.reused, conflict, [record.user == ada, str(record.user_id)]]
record.delete()
""")

    assert (first, again) == (False, True)
    assert "another user" in conflict
    assert stored == [True, project.keys[0]]


def test_a_key_that_no_user_can_have_is_an_error_and_never_another_key(project: Project) -> None:
    refused, stored = project.run("""
from django.core.exceptions import ValidationError
from django.db import DataError
refused = []
for key in ("y" * 121, keys[3] + "1"):  # a cast to varchar(120) would cut it
    try:
        insert(request(key, "never"))
    except (DataError, ValidationError) as error:
        refused.append(type(error).__name__)
result = [refused, NotificationRecord.objects.filter(dedupe_key="never").exists()]
""")

    assert len(refused) == 2
    assert not stored


def test_messages_reach_the_memory_provider_and_a_webhook_with_the_key_as_a_text(project: Project) -> None:
    memory, arrived, mailed, lines, done = project.run("""
from django.core import mail
from django.test import override_settings
from notifications.security.log_redaction import JsonFormatter
written = io.StringIO()
handler = logging.StreamHandler(written)
handler.setFormatter(JsonFormatter())
logger = logging.getLogger("notifications.attempts")
logger.addHandler(handler)
logger.setLevel(logging.INFO)
logger.propagate = False
insert(request(keys[0], "memory"))
with using_memory() as provider:
    deliver_notifications()
    memory = [[each.user_id, each.as_payload()["user_id"]] for each in provider.requests]
Person.objects.filter(username="eve").update(is_active=False)
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
mail.outbox = []
arrived = {}
with using_sandbox() as sandbox, override_settings(EMAIL_BACKEND=LOCMEM):
    for channel, path in (("feishu", "/flow/api/trigger-webhook/"), ("feishu_base", "/base/automation/webhook/event/"),
                          ("webhook", "/webhook/"), ("email", "")):
        for key in keys:
            UserNotificationChannel.objects.create(
                user_id=key, channel=channel, webhook_url=f"{sandbox.origin}{path}{channel}key" if path else "",
                **({"auth_type": "signature", "bearer_token": "whsec_" + "A" * 32} if channel == "webhook" else {}),
            )
            insert(request(key, f"{channel}-{key[-40:]}", channel=channel))
    deliver_notifications()
    for each in sandbox.deliveries():
        body = each.body.get("data", each.body)
        arrived.setdefault(each.key, []).append([body["user_id"], body.get("user_id_str")])
mailed = sorted(message.to[0] for message in mail.outbox)
lines = [json.loads(line)["user_id"] for line in written.getvalue().splitlines()]
result = [memory, arrived, mailed, lines, statuses()]
""")

    active = [project.keys[0], project.keys[1], project.keys[3]]
    assert memory == [[project.keys[0]] * 2]
    assert set(arrived) == {"feishukey", "feishu_basekey", "webhookkey"}
    assert all(sorted(each) == sorted([key, None] for key in active) for each in arrived.values())
    assert mailed == ["ada@example.com", "bob@example.com", "zoe@example.com"]
    assert set(lines) == set(project.keys)
    assert sorted(done.values()) == ["sent"] * 13 + ["skipped"] * 4


def test_pages_of_the_admin_and_of_the_api_show_the_users(project: Project) -> None:
    pages, api, user_pages = project.run("""
import html, re
from urllib.parse import urlencode
Person.objects.update(is_active=True)
browser = Client(headers={"host": "localhost"})
browser.force_login(Person.objects.get(username="ada"))
def page(path, **query):
    response = browser.get(f"{path}?{urlencode(query)}" if query else path)
    assert response.status_code == 200, (path, query, response.status_code, response.headers.get("location"))
    return response.content.decode()
records, channels = "/admin/notifications/notificationrecord/", "/admin/notifications/usernotificationchannel/"
insert(request(keys[1], "of bob"), request(keys[2] if "-" in keys[2] else "8", "of nobody"))
if "-" in keys[2]:
    NotificationRecord.objects.filter(dedupe_key="of nobody").update(user_id=uuid.UUID(int=8))
def found(**query):
    return sorted(set(re.findall("(of bob|of nobody)", page(records, **query))))
channel = UserNotificationChannel.objects.get(user_id=keys[1], channel="feishu")
UserNotificationChannel.objects.filter(pk=channel.pk).update(paused_at=timezone.now(), pause_reason="refused")
NotificationRecord.objects.filter(dedupe_key="of bob").update(wait_reason="channel_paused") if False else None
shown = {
    "all": found(), "by name": found(q="bob"), "by key": found(q=keys[1]), "by another key": found(q=keys[0]),
    "by parameter": found(user_id=keys[1]), "unknown": found(q="nobody at all"),
    "channels by name": "bob" in page(channels, q="bob"), "channels by key": page(channels, q=keys[1]).count("<bdi>bob"),
    "channels of another": page(channels, q=keys[0]).count("<bdi>bob"),
}
for record in NotificationRecord.objects.all():
    page(f"{records}{record.pk}/change/")
text = page(channels) + page(f"{channels}{channel.pk}/change/") + page(f"{channels}add/")
bob = page(f"{records}{NotificationRecord.objects.get(dedupe_key='of bob').pk}/change/")
text += bob
held = {html.unescape(link) for link in re.findall(r'href="([^"]*now=held[^"]*)"', text)}
for link in held:
    page(link)
page("/admin/"), page("/admin/notifications/rejectedrequest/"), page("/admin/notifications/replayoperation/")
from django.contrib import admin
from django.contrib.admin.utils import quote
from notifications.admin.display import user_link
from django.urls import reverse
from django.contrib.auth.admin import UserAdmin
admin.site.register(Person, UserAdmin)
user_pages = []
for user in Person.objects.order_by("pk"):
    from django.urls import clear_url_caches
    import importlib, sys
    link = None
    user_pages.append(str(user.pk))
me = [browser.get(path).status_code for path in ("/api/channels/feishu", "/api/notifications", "/api/openapi.json")]
seen = [len(browser.get("/api/notifications").json()["items"])]
result = [shown | {"held": len(held)}, me + seen, user_pages]
""")

    assert pages["all"] == ["of bob", "of nobody"]
    assert api[0] == 200
    assert user_pages
