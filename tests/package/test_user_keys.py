"""Projects whose users have no integer keys: UUIDs, or texts of any kind."""

from __future__ import annotations

import os
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
OWN_ADMIN = """
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from mysite.models import Person
admin.site.register(Person, UserAdmin)
"""
UUID_KEY = "id = models.UUIDField(primary_key=True, default=uuid.uuid4)"
TEXT_KEY = "code = models.CharField(primary_key=True, max_length=120)"
KEYS = {
    UUID_KEY: [f"5f1c0f9e-6b0a-4b8e-9d53-{number:012d}" for number in range(1, 5)],
    # What an address, a query string, a label of a metric or a cast to a shorter column would change.
    TEXT_KEY: ['staff/anna_2F "ü" & 1%', "None", "7", "x" * 120],
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
NOTIFICATIONS |= {{'INACTIVE_USERS': 'skip', 'RATE_LIMITS': {{'feishu_base': ''}}}}
NOTIFICATIONS |= {{'OWNER_MAIL_FROM': 'noreply@example.com'}}
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
from notifications.models import RejectedRequest, ReplayOperation
Person = get_user_model()
for model in (NotificationRecord, UserNotificationChannel, RejectedRequest, ReplayOperation):
    model.objects.all().delete()  # what another test left
Person.objects.update(is_active=True)
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
    modules = {"admin": OWN_ADMIN, "models": USER.format(key=request.param), "urls": URLS, "celery": CELERY}
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


ADMIN = """
import html, re
from urllib.parse import urlencode
from django.test.utils import setup_test_environment
setup_test_environment()  # responses have their context
browser = Client(headers={"host": "localhost"})
browser.force_login(Person.objects.get(username="ada"))
RECORDS, CHANNELS = "/admin/notifications/notificationrecord/", "/admin/notifications/usernotificationchannel/"
def page(path, **query):
    response = browser.get(f"{path}?{urlencode(query)}" if query else path)
    assert response.status_code == 200, (path, query, response.status_code)
    return response.content.decode()
def found(path, text, **query):
    return sorted(set(re.findall(text, page(path, **query))))
"""


def test_the_admin_finds_and_links_records_and_channels_by_user(project: Project) -> None:
    records, channels, opened = project.run(
        ADMIN
        + """
insert(request(keys[0], "of-ada"), request(keys[1], "of-bob"))
[paused] = UserNotificationChannel.objects.bulk_create([UserNotificationChannel(
    user_id=keys[1], channel="feishu_bot", paused_at=timezone.now(), pause_reason="refused"
)])
NotificationRecord.objects.filter(dedupe_key="of-bob").update(channel="feishu_bot", hold_reason="channel_paused")
texts = "of-(?:ada|bob)"
records = [
    found(RECORDS, texts), found(RECORDS, texts, q="bob"), found(RECORDS, texts, q=keys[1]),
    found(RECORDS, texts, user_id=keys[1]), found(RECORDS, texts, q="nobody at all"),
]
names = "<bdi>(ada|bob|eve|zoe)</bdi>"
channels = [
    found(CHANNELS, names, q="bob"), found(CHANNELS, names, q=keys[1]), found(CHANNELS, names, q="nobody at all")
]
paths = [f"{RECORDS}{pk}/change/" for pk in NotificationRecord.objects.values_list("pk", flat=True)]
links = set()
for path in (RECORDS, CHANNELS, f"{CHANNELS}{paused.pk}/change/", f"{CHANNELS}add/", "/admin/",
             "/admin/notifications/rejectedrequest/", "/admin/notifications/replayoperation/",
             *paths):
    wanted = re.findall('href="([^"]*(?:notificationrecord/.now=held|/mysite/person/[^"]+/change/)[^"]*)"', page(path))
    links |= set(map(html.unescape, wanted))
opened = sorted("held" if "now=held" in link else "user" for link in links if page(link))
result = [records, channels, opened]
"""
    )

    assert records == [["of-ada", "of-bob"], ["of-bob"], ["of-bob"], ["of-bob"], []]
    assert channels == [["bob"], ["bob"], []]
    assert opened == ["held", "user", "user"]


def test_a_user_who_is_gone_is_shown_by_the_key(project: Project) -> None:
    shown = project.run(
        ADMIN
        + """
gone = "00000000-0000-0000-0000-00000000beef"  # a text that is a UUID, too
insert(request(gone, "of-nobody"))
with using_memory():
    deliver_notifications()
record = NotificationRecord.objects.get(dedupe_key="of-nobody")
pages = page(RECORDS), page(f"{RECORDS}{record.pk}/change/"), page(RECORDS, q=gone)
result = [record.status, *(gone in text for text in pages)]
"""
    )

    assert shown == ["sent", True, True, True]


def test_the_api_serves_such_a_user(project: Project) -> None:
    codes, items, owner, tested = project.run(
        """
browser = Client(headers={"host": "localhost"})
zoe = Person.objects.get(username="zoe")
browser.force_login(zoe)
insert(request(zoe.pk, "of-zoe"))
with using_sandbox() as sandbox:
    codes = [
        browser.put("/api/channels/feishu", {"webhook_url": sandbox.webhook_url("zoeskey01"), "enabled": True},
                    content_type="application/json").status_code,
        browser.get("/api/channels/feishu").status_code,
        (tested := browser.post("/api/channels/feishu/test")).status_code,
        browser.get("/api/openapi.json").status_code,
    ]
    arrived = [each.body["user_id"] for each in sandbox.deliveries("zoeskey01")]
owner = [str(key) for key in UserNotificationChannel.objects.values_list("user", flat=True)]
items = browser.get("/api/notifications").json()["items"]
codes.append(browser.delete("/api/channels/feishu").status_code)
result = [codes, [item["status"] for item in items], owner, [tested.json()["status"], arrived]]
"""
    )

    assert codes == [200] * 4 + [204]
    assert items[:2] == ["sent", "pending"]  # the test message, and the request
    assert owner == [project.keys[3]]
    assert tested == ["sent", [project.keys[3]]]


def test_test_messages_go_to_a_user_by_name_and_by_key(project: Project) -> None:
    said = project.run("""
said = io.StringIO()
UserNotificationChannel.objects.update_or_create(user_id=keys[3], channel="feishu", defaults={"enabled": True})
with using_memory() as provider:
    call_command("send_test_notification", "zoe", stdout=said)
    call_command("send_test_notification", keys[3], stdout=said)
    result = [said.getvalue().count("Delivered"), [each.user_id for each in provider.requests]]
""")

    assert said == [2, [project.keys[3]] * 2]


def test_operators_replay_the_records_of_one_user(project: Project) -> None:
    by_command, refused, criteria, by_form, form_error = project.run(
        ADMIN
        + """
from django.core.management.base import CommandError
from notifications.replay.criteria import Criteria
def make_dead():
    NotificationRecord.objects.all().delete()
    ReplayOperation.objects.all().delete()
    insert(request(keys[0], "of-ada"), request(keys[1], "of-bob"))
    NotificationRecord.objects.update(status="dead", next_attempt_at=None, last_error_code="provider_5xx")
make_dead()
class Kept(logging.Handler):
    def emit(self, record):
        if hasattr(record, "actor_id"):
            lines.append(json.dumps(record.actor_id))
lines = []
logging.getLogger("notifications").addHandler(Kept())
logging.getLogger("notifications").setLevel(logging.INFO)
logging.getLogger("notifications").propagate = False
call_command("replay_notifications", "--user", keys[0], "--reason", "fixed", "--actor", "ada", stdout=io.StringIO())
by_command = [statuses(), sorted(set(map(json.loads, lines)))]
try:
    call_command("replay_notifications", "--user", "y" * 121, "--dry-run")
    refused = ""
except CommandError as error:
    refused = str(error)
operation = ReplayOperation.objects.get()
page(f"/admin/notifications/replayoperation/{operation.pk}/change/")
given = Criteria(user=Person.objects.get(username="bob").pk)
criteria = [operation.criteria, given.as_json(), Criteria.from_json(given.as_json()) == given]
make_dead()
add = "/admin/notifications/replayoperation/add/"
form_error = sorted(browser.post(add, {"user": "y" * 121, "_count": "1"}).context["form"].errors)
counted = browser.post(add, {"user": keys[1], "reason": "fixed", "_count": "1"})
fields = {name: counted.context["form"][name].value() or "" for name in ("user", "reason", "counted", "as_of")}
started = browser.post(add, fields | {"_start": "1"})
assert started.status_code == 302, started.context["form"].errors
operation = ReplayOperation.objects.get()
by_form = [operation.criteria, operation.matched]
result = [by_command, refused, criteria, by_form, form_error]
"""
    )

    assert by_command == [{"of-ada": "pending", "of-bob": "dead"}, [project.keys[0]]]
    assert "must be a user id" in refused
    assert criteria == [{"user": project.keys[0]}, {"user": project.keys[1]}, True]
    assert by_form == [{"user": project.keys[1]}, 1]
    assert form_error == ["user"]


def test_the_doctor_and_the_metrics_know_the_users(project: Project) -> None:
    labels, doctor = project.run("""
from django.core.management.base import CommandError
from prometheus_client.parser import text_string_to_metric_families
from notifications.monitoring.prometheus import exposition
insert(*(request(key, f"k{number}") for number, key in enumerate(keys)))
labels = sorted(
    sample.labels["user"] for family in text_string_to_metric_families(exposition().decode())
    for sample in family.samples if sample.name == "notifications_endpoint_waiting"
)
said = io.StringIO()
try:
    call_command("notifications_doctor", "--json", stdout=said)
except CommandError:
    pass  # nothing sweeps
result = [labels, {one["name"]: one["state"] for one in json.loads(said.getvalue())}]
""")

    assert labels == sorted(project.keys)
    assert {name for name, state in doctor.items() if state == "error"} == {"sweep"}


def test_the_owner_of_a_paused_channel_is_told_by_mail(project: Project) -> None:
    told = project.run("""
from django.conf import settings
from django.core import mail
from django.test import override_settings
from notifications.monitoring.alerting.owner_emails import email_channel_owners
mail.outbox = []
UserNotificationChannel.objects.update_or_create(
    user_id=keys[1], channel="webhook", defaults={"paused_at": timezone.now(), "pause_reason": "refused"}
)
with override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
    email_channel_owners()
result = [message.to for message in mail.outbox]
""")

    assert told == [["bob@example.com"]]


def test_the_event_of_the_go_service_is_refused_by_name(project: Project) -> None:
    reasons, rejected = project.run("""
from notifications import tasks
from notifications.api import InvalidNotification, request_notification, request_triggered, schedule_job
logging.disable()
event = {"user_id": 42, "dedupe_key": "k", "preview_id": "p", "target_url": "/x", "requested_at": timezone.now()}
trigger = {"trigger_id": "t", "user_id": 42, "trigger_type": "a", "source": "b", "target_type": "c", "target_id": 1,
           "requested_at": timezone.now()}
reasons = []
for call in (lambda: request_notification(event), lambda: request_notification(event | {"user_id": keys[0]}),
             lambda: request_triggered(trigger),
             lambda: schedule_job("active_schedule.triggered", trigger, timezone.now(), "job")):
    try:
        call()
    except InvalidNotification as error:
        reasons.append([[field, str(reason)] for field, reason in error.errors])
tasks.handle_feishu_requested.run(event | {"requested_at": timezone.now().isoformat()})
tasks.handle_triggered.run(trigger | {"requested_at": timezone.now().isoformat()})
result = [reasons, list(RejectedRequest.objects.order_by("pk").values_list("errors", flat=True))]
""")

    reason = "this project's users have no integer keys; use notify()"
    assert reasons == [[["user_id", reason]]] * 4
    assert rejected == [[{"field": "user_id", "reason": reason}]] * 2
