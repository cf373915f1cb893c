"""Permissions: every URL and every action of the admin and the HTTP API, tried by every kind of user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.test import Client, RequestFactory
from django.urls import get_resolver, reverse
from django.utils import timezone

from notifications.models import (
    DeliveryAttempt,
    DueJob,
    NotificationEvent,
    NotificationRecord,
    RejectedRequest,
    ReplayOperation,
    UserNotificationChannel,
)
from notifications.providers import get_provider
from notifications.replay import operations as replays
from notifications.replay.criteria import Criteria
from notifications.web_api import api as http_api
from tests.support.factories import make_attempt, make_record

pytestmark = pytest.mark.django_db

ADDRESS = "https://www.feishu.cn/flow/api/trigger-webhook/canary0123456789"
LOGIN, OK, BACK, NO, WRONG_METHOD = "login", 200, 302, 403, 405
AS_OF = "2026-05-01T08:00:00+00:00"
VIEWS = (
    *("view_notificationrecord", "view_usernotificationchannel", "view_rejectedrequest", "view_duejob"),
    "view_notificationevent",
)
PEOPLE: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "user": {"permissions": VIEWS, "is_staff": False},
    "staff": {"permissions": ()},
    "replayer": {"permissions": ("replay_notificationrecord",)},
    "canceller": {"permissions": ("cancel_notificationrecord",)},
    "hastener": {"permissions": ("send_now_notificationrecord",)},
    "viewer": {"permissions": VIEWS},
    "superuser": {"permissions": (), "is_superuser": True},
}
OUTSIDERS: dict[str, str | int] = {
    "anonymous": LOGIN,
    "user": LOGIN,
    "staff": NO,
    "replayer": NO,
    "canceller": NO,
    "hastener": NO,
}


@dataclass(frozen=True)
class Page:
    """The statuses a viewer and a superuser get at one URL. Everybody else is refused."""

    viewer: tuple[int, int]
    """For GET and POST."""
    superuser: tuple[int, int]
    changes: bool = False
    """True if the superuser's POST changes something, which shows that the POST of the others was a real attempt."""


LOOK_ONLY = Page((NO, NO), (NO, NO))
PAGES = {
    "notifications_notificationrecord_changelist": Page((OK, OK), (OK, OK)),
    "notifications_notificationrecord_add": LOOK_ONLY,
    "notifications_notificationrecord_history": Page((OK, OK), (OK, OK)),
    "notifications_notificationrecord_delete": LOOK_ONLY,
    "notifications_notificationrecord_change": Page((OK, NO), (OK, NO)),
    "notifications_usernotificationchannel_changelist": Page((OK, OK), (OK, OK)),
    "notifications_usernotificationchannel_add": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_usernotificationchannel_kinds": Page((OK, OK), (OK, OK)),
    "notifications_usernotificationchannel_history": Page((OK, OK), (OK, OK)),
    "notifications_usernotificationchannel_delete": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_usernotificationchannel_change": Page((OK, NO), (OK, BACK), changes=True),
    "notifications_replayoperation_changelist": Page((OK, OK), (OK, OK)),
    "notifications_replayoperation_add": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_replayoperation_history": Page((OK, OK), (OK, OK)),
    "notifications_replayoperation_delete": LOOK_ONLY,
    "notifications_replayoperation_change": Page((OK, NO), (OK, NO)),
    "notifications_replayoperation_cancel": Page((NO, NO), (WRONG_METHOD, BACK), changes=True),
    "notifications_duejob_changelist": Page((OK, OK), (OK, OK)),
    "notifications_duejob_add": LOOK_ONLY,
    "notifications_duejob_history": Page((OK, OK), (OK, OK)),
    "notifications_duejob_delete": LOOK_ONLY,
    "notifications_duejob_change": Page((OK, NO), (OK, NO)),
    "notifications_notificationevent_changelist": Page((OK, OK), (OK, OK)),
    "notifications_notificationevent_add": LOOK_ONLY,
    "notifications_notificationevent_history": Page((OK, OK), (OK, OK)),
    "notifications_notificationevent_delete": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_notificationevent_change": Page((OK, NO), (OK, NO)),
    "notifications_rejectedrequest_changelist": Page((OK, OK), (OK, OK)),
    "notifications_rejectedrequest_add": LOOK_ONLY,
    "notifications_rejectedrequest_history": Page((OK, OK), (OK, OK)),
    "notifications_rejectedrequest_delete": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_rejectedrequest_change": Page((OK, NO), (OK, NO)),
}
ACTIONS = {
    ("notificationrecord", "replay"): "replay_notificationrecord",
    ("notificationrecord", "send_now"): "send_now_notificationrecord",
    ("notificationrecord", "cancel"): "cancel_notificationrecord",
    ("usernotificationchannel", "send_test"): "change_usernotificationchannel",
    ("usernotificationchannel", "resume"): "change_usernotificationchannel",
    ("usernotificationchannel", "delete_selected"): "delete_usernotificationchannel",
    ("rejectedrequest", "delete_selected"): "delete_rejectedrequest",
    ("notificationevent", "delete_selected"): "delete_notificationevent",
}
"""The permission that each action requires in addition to the view permission."""
UNSEEN = {"counter", "heartbeat", "alert"}
"""Models without admin pages. The overview and the metrics show their data."""


@dataclass(frozen=True)
class Rows:
    """One row of each kind, in a state that every operation would change."""

    dead: NotificationRecord
    waiting: NotificationRecord
    channel: UserNotificationChannel
    rejected: RejectedRequest
    operation: ReplayOperation
    job: DueJob
    event: NotificationEvent
    stranger: User

    def of(self, model: str, action: str = "") -> Any:
        """Return the row of a model, by its name in an address, that the action would change."""
        record = self.dead if action in ("", "replay") else self.waiting
        rows = {"notificationrecord": record, "usernotificationchannel": self.channel}
        rows |= {"replayoperation": self.operation, "duejob": self.job, "notificationevent": self.event}
        return rows.get(model, self.rejected)


@pytest.fixture
def rows(db: None, monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.setattr("notifications.broker.nudge.nudge", lambda: None)
    monkeypatch.setattr(replays, "nudge_replays", lambda: True)
    dead = make_record("dead")
    make_attempt(dead)
    return Rows(
        dead=dead,
        waiting=make_record("pending"),
        channel=UserNotificationChannel.objects.create(
            user=User.objects.create(username="owner"),
            webhook_url=ADDRESS,
            enabled=False,  # a test message then ends here and goes nowhere
            paused_at=timezone.now(),
        ),
        rejected=RejectedRequest.objects.create(source="x", payload="{}", errors=[]),
        operation=replays.create_operation(Criteria(channel="feishu"), None, "mended"),
        job=DueJob.objects.create(
            key="job", event="active_schedule.triggered", payload={}, run_at=timezone.now(), next_run_at=timezone.now()
        ),
        event=NotificationEvent.objects.create(record=dead, name="died", payload={}, occurred_at=timezone.now()),
        stranger=User.objects.create(username="stranger"),
    )


@pytest.fixture
def browser(db: None) -> Callable[..., Client]:
    """Return a function that returns a client, signed in as one of PEOPLE with further permissions."""

    def browse(person: str, *more: str, strict: bool = False) -> Client:
        client = Client(enforce_csrf_checks=strict)
        if fields := PEOPLE[person]:
            given = {"is_staff": True} | fields
            codes = {*given.pop("permissions"), *more}
            # Without a password, because hashing one is slow.
            user = User.objects.create(username="-".join((person, *more)), **given)
            permissions = Permission.objects.filter(codename__in=codes)
            assert permissions.count() == len(codes)
            user.user_permissions.set(permissions)
            client.force_login(user)
        return client

    return browse


def stored() -> list[list[dict[str, Any]]]:
    """Return everything that is in the app's tables."""
    models: Any = (NotificationRecord, DeliveryAttempt, UserNotificationChannel, RejectedRequest, ReplayOperation)
    models = (*models, DueJob, NotificationEvent)
    return [list(model._default_manager.order_by("pk").values()) for model in models]


def address(name: str, rows: Rows) -> str:
    _app, model, view = name.split("_")
    with_key = view in ("change", "delete", "history", "cancel")
    return reverse(f"admin:{name}", args=[rows.of(model).pk] if with_key else [])


def form(name: str, rows: Rows) -> dict[str, Any]:
    """Return the form data with which a POST to this URL takes effect."""
    channel = {"auth_type": "none", "new_webhook_url": f"{ADDRESS}x"}
    record = {"status": "sent", "dedupe_key": "forged", "user": rows.stranger.pk, "max_attempts": 1}
    channels: dict[str, dict[str, Any]] = {
        "notifications_usernotificationchannel_add": channel | {"user": rows.stranger.pk, "channel": "feishu"},
        "notifications_usernotificationchannel_change": channel,
        "notifications_replayoperation_add": {"counted": "{}", "as_of": AS_OF, "reason": "mended", "_start": "yes"},
    }
    return channels.get(name, {"post": "yes", "_save": "Save", "source": "forged", **record})


def operation(model: str, action: str, rows: Rows) -> dict[str, Any]:
    """Return the form data that confirms an action on the one row that it would change."""
    row = rows.of(model, action)
    confirmed = {"confirm": "yes", "reason": "because", "newest": row.pk, "post": "yes"}
    return {"action": action, "_selected_action": row.pk, "index": 0, **confirmed}


def outcome(response: Any) -> str | int:
    """Return the status, or LOGIN for a redirect to the login page."""
    login = response.status_code == BACK and response["Location"].startswith("/admin/login/")
    return LOGIN if login else response.status_code


def names_of_the_app() -> set[str]:
    """Return the names of all addresses the app has under the admin."""
    root: Any = get_resolver()
    [admin_urls] = [item for item in root.url_patterns if getattr(item, "namespace", "") == "admin"]
    ours = [item for item in admin_urls.url_patterns if str(item.pattern).startswith("notifications/")]
    views = [view for item in ours for view in item.url_patterns]
    # The only URL without a name is Django's own redirect of an old address.
    assert {str(view.pattern) for view in views if not view.name} == {"<path:object_id>/"}
    return {view.name for view in views if view.name}


class TestTables:
    def test_table_lists_every_url_of_the_app(self) -> None:
        assert names_of_the_app() == set(PAGES)

    def test_table_covers_every_model_with_an_admin(self) -> None:
        registered = {
            model._meta.model_name for model in admin.site._registry if model._meta.app_label == "notifications"
        }

        assert {name.split("_")[1] for name in PAGES} == registered
        assert registered | {"deliveryattempt", *UNSEEN} == {
            model._meta.model_name for model in apps.get_app_config("notifications").get_models()
        }

    def test_table_lists_every_action(self) -> None:
        request = RequestFactory().get("/")
        request.user = User(is_active=True, is_staff=True, is_superuser=True)

        found = {
            (model._meta.model_name, action)
            for model, model_admin in admin.site._registry.items()
            if model._meta.app_label == "notifications"
            for action in model_admin.get_actions(request)
        }

        assert found == set(ACTIONS)

    def test_actions_are_not_offered_without_permission(self) -> None:
        request = RequestFactory().get("/")
        for request.user in (AnonymousUser(), User.objects.create(username="bare", is_staff=True)):
            for model, model_admin in admin.site._registry.items():
                if model._meta.app_label == "notifications":
                    assert not model_admin.get_actions(request)


def expected(person: str, name: str, *, post: bool) -> str | int:
    """Return the outcome of a GET or POST of this person at the address of this name."""
    if person in OUTSIDERS:
        return OUTSIDERS[person]
    get_status, post_status = getattr(PAGES[name], person)
    return int(post_status if post else get_status)


class TestPages:
    @pytest.mark.parametrize("name", PAGES)
    def test_get_is_allowed_by_permission_and_changes_nothing(
        self, browser: Callable[..., Client], rows: Rows, name: str
    ) -> None:
        before, url = stored(), address(name, rows)
        for person in PEOPLE:
            client = browser(person)

            plain, _with_form, head = client.get(url), client.get(url, form(name, rows)), client.head(url)

            for response in (plain, head):
                assert outcome(response) == expected(person, name, post=False), person
            assert stored() == before, person

    @pytest.mark.parametrize("name", PAGES)
    def test_post_is_allowed_by_permission(self, browser: Callable[..., Client], rows: Rows, name: str) -> None:
        before, url = stored(), address(name, rows)
        for person in PEOPLE:  # the superuser is last: only their POST may change something
            response = browser(person).post(url, form(name, rows))

            assert outcome(response) == expected(person, name, post=True), person
            assert (stored() != before) == (PAGES[name].changes and person == "superuser"), person

    @pytest.mark.parametrize("name", PAGES)
    def test_other_methods_change_nothing(self, browser: Callable[..., Client], rows: Rows, name: str) -> None:
        client, before = browser("superuser"), stored()
        for method in ("put", "patch", "delete", "options", "trace"):
            getattr(client, method)(address(name, rows))

            assert stored() == before, method

    @pytest.mark.parametrize("name", PAGES)
    def test_post_without_csrf_token_is_refused(self, browser: Callable[..., Client], rows: Rows, name: str) -> None:
        client, before, url = browser("superuser", strict=True), stored(), address(name, rows)
        client.get(url)  # sets the cookie, which alone must not be enough

        response = client.post(url, form(name, rows))

        assert response.status_code == NO
        assert stored() == before


class TestActions:
    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    def test_action_runs_only_for_the_superuser_of_all_people(
        self, browser: Callable[..., Client], rows: Rows, model: str, action: str
    ) -> None:
        before, url = stored(), reverse(f"admin:notifications_{model}_changelist")
        for person in PEOPLE:  # the superuser is last
            response = browser(person).post(url, operation(model, action, rows))

            if person in OUTSIDERS:
                assert outcome(response) == OUTSIDERS[person], person
            elif person == "viewer" and model == "notificationrecord":
                assert outcome(response) == NO
            assert (stored() != before) == (person == "superuser"), person

    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    def test_action_requires_its_own_permission_and_no_other(
        self, browser: Callable[..., Client], rows: Rows, model: str, action: str
    ) -> None:
        before, url = stored(), reverse(f"admin:notifications_{model}_changelist")
        required = ACTIONS[model, action]
        for permission in sorted(set(ACTIONS.values()) - {required}):
            browser("viewer", permission).post(url, operation(model, action, rows))

            assert stored() == before, permission

        browser("viewer", required).post(url, operation(model, action, rows))
        assert stored() != before

    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    def test_get_runs_no_action(self, browser: Callable[..., Client], rows: Rows, model: str, action: str) -> None:
        client, before = browser("superuser"), stored()

        for view in ("changelist", "change"):
            client.get(address(f"notifications_{model}_{view}", rows), operation(model, action, rows))

        assert stored() == before

    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    def test_action_without_csrf_token_is_refused(
        self, browser: Callable[..., Client], rows: Rows, model: str, action: str
    ) -> None:
        client, before = browser("superuser", strict=True), stored()
        url = reverse(f"admin:notifications_{model}_changelist")
        client.get(url)
        asked = operation(model, action, rows)

        without = client.post(url, asked)
        forged = client.post(url, asked | {"csrfmiddlewaretoken": "x" * 64})
        assert (without.status_code, forged.status_code) == (NO, NO)
        assert stored() == before

        client.post(url, asked | {"csrfmiddlewaretoken": client.cookies["csrftoken"].value})
        assert stored() != before


CHANNEL = "/api/channels/feishu"
OPERATIONS = {
    ("get", CHANNEL): {},
    ("put", CHANNEL): {"webhook_url": f"{ADDRESS}x"},
    ("delete", CHANNEL): {},
    ("post", f"{CHANNEL}/test"): {},
    ("get", "/api/notifications"): {},
}
"""Every operation of the HTTP API, and the body with which it takes effect."""
CHANGES = [operation for operation in OPERATIONS if operation[0] != "get"]


class TestHttpApi:
    """The API has no permissions. Each signed-in user can access their own channel and notifications only."""

    @pytest.fixture(autouse=True)
    def sent(self, change: Callable[..., None]) -> Any:
        """Return the list of sent test messages."""
        change(PROVIDERS={"feishu": "notifications.providers.memory.MemoryProvider"})
        provider: Any = get_provider("feishu")
        return provider.requests

    def send(self, client: Client, operation: tuple[str, str], **headers: str) -> Any:
        method, url = operation
        if method == "get":
            return client.get(url, headers=headers)
        return getattr(client, method)(url, OPERATIONS[operation], content_type="application/json", headers=headers)

    def test_table_lists_every_operation(self) -> None:
        paths = http_api.get_openapi_schema()["paths"]

        assert {(method, path) for path, methods in paths.items() for method in methods} == set(OPERATIONS)

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_anonymous_request_gets_401_and_changes_nothing(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str]
    ) -> None:
        before = stored()
        for strict in (False, True):
            response = self.send(browser("anonymous", strict=strict), operation)

            assert response.status_code == 401, strict
            assert response.json() == {"errors": [{"field": "", "message": "Sign in first."}]}, strict
            assert stored() == before, strict

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_inactive_user_gets_401(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str]
    ) -> None:
        client, before = browser("user"), stored()
        User.objects.filter(username="user").update(is_active=False)

        assert self.send(client, operation).status_code == 401
        assert stored() == before

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_user_accesses_own_rows_only(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str], sent: list[Any]
    ) -> None:
        for person in [name for name in PEOPLE if name != "anonymous"]:
            self.check_own_rows_only(browser, person, operation, sent)

    def check_own_rows_only(
        self, browser: Callable[..., Client], person: str, operation: tuple[str, str], sent: list[Any]
    ) -> None:
        sent.clear()
        client = browser(person)
        user = User.objects.get(username=person)
        own = UserNotificationChannel.objects.create(user=user, webhook_url=ADDRESS.replace("canary", "myown0"))
        record = make_record(user_id=user.pk)

        def others() -> list[dict[str, Any]]:
            return [row for table in stored() for row in table if row.get("user_id", user.pk) != user.pk]

        before = others()

        response = self.send(client, operation)

        assert response.status_code in (200, 204), person
        assert others() == before, person
        assert "cana...6789" not in response.content.decode() or operation[0] == "put", person
        assert {request.user_id for request in sent} <= {user.pk}, person
        if operation == ("get", "/api/notifications"):
            assert [item["id"] for item in response.json()["items"]] == [record.pk], person
        if operation == ("delete", CHANNEL):
            assert not UserNotificationChannel.objects.filter(pk=own.pk).exists(), person

    @pytest.mark.parametrize("operation", CHANGES)
    def test_change_without_csrf_token_is_refused(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str]
    ) -> None:
        client = browser("user", strict=True)
        user = User.objects.get(username="user")
        UserNotificationChannel.objects.create(user=user, webhook_url=ADDRESS)
        before = stored()

        without = self.send(client, operation)
        token = client.get(CHANNEL).cookies["csrftoken"].value  # every response sets the cookie
        with_cookie, forged = self.send(client, operation), self.send(client, operation, **{"X-CSRFToken": "x" * 64})
        foreign = self.send(client, operation, **{"X-CSRFToken": token, "Origin": "https://evil.example"})

        for response in (without, with_cookie, forged, foreign):
            assert response.status_code == NO
            assert "X-CSRFToken" in response.json()["errors"][0]["message"]
        assert stored() == before

        assert self.send(client, operation, **{"X-CSRFToken": token}).status_code in (200, 204)
        assert stored() != before

    @pytest.mark.parametrize("url", sorted({url for _method, url in OPERATIONS}))
    def test_other_methods_get_405_and_change_nothing(
        self, browser: Callable[..., Client], rows: Rows, url: str
    ) -> None:
        client, before = browser("superuser"), stored()
        for method in ("get", "post", "put", "patch", "delete", "head", "options", "trace"):
            if (method, url) not in OPERATIONS:
                assert getattr(client, method)(url).status_code == 405, method
                assert stored() == before, method
