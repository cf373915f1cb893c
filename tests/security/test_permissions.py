"""Who may do what: every address and every action of the admin and the HTTP API, tried by everybody."""

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

from notifications import api
from notifications.models import (
    DeliveryAttempt,
    DueJob,
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
LOGIN, OK, BACK, NO, NOT_SO = "login", 200, 302, 403, 405
AS_OF = "2026-05-01T08:00:00+00:00"
VIEWS = ("view_notificationrecord", "view_usernotificationchannel", "view_rejectedrequest", "view_duejob")
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
OUTSIDERS = {"anonymous": LOGIN, "user": LOGIN, "staff": NO, "replayer": NO, "canceller": NO, "hastener": NO}


@dataclass(frozen=True)
class Page:
    """What a viewer and a superuser get at one address; everybody else is turned away."""

    viewer: tuple[int, int]
    """By GET and by POST."""
    superuser: tuple[int, int]
    changes: bool = False
    """Whether the superuser's POST changes anything: it shows that the others' was worth refusing."""


LOOK_ONLY = Page((NO, NO), (NO, NO))
PAGES = {
    "notifications_notificationrecord_changelist": Page((OK, OK), (OK, OK)),
    "notifications_notificationrecord_add": LOOK_ONLY,
    "notifications_notificationrecord_history": Page((OK, OK), (OK, OK)),
    "notifications_notificationrecord_delete": LOOK_ONLY,
    "notifications_notificationrecord_change": Page((OK, NO), (OK, NO)),
    "notifications_usernotificationchannel_changelist": Page((OK, OK), (OK, OK)),
    "notifications_usernotificationchannel_add": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_usernotificationchannel_history": Page((OK, OK), (OK, OK)),
    "notifications_usernotificationchannel_delete": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_usernotificationchannel_change": Page((OK, NO), (OK, BACK), changes=True),
    "notifications_replayoperation_changelist": Page((OK, OK), (OK, OK)),
    "notifications_replayoperation_add": Page((NO, NO), (OK, BACK), changes=True),
    "notifications_replayoperation_history": Page((OK, OK), (OK, OK)),
    "notifications_replayoperation_delete": LOOK_ONLY,
    "notifications_replayoperation_change": Page((OK, NO), (OK, NO)),
    "notifications_replayoperation_cancel": Page((NO, NO), (NOT_SO, BACK), changes=True),
    "notifications_duejob_changelist": Page((OK, OK), (OK, OK)),
    "notifications_duejob_add": LOOK_ONLY,
    "notifications_duejob_history": Page((OK, OK), (OK, OK)),
    "notifications_duejob_delete": LOOK_ONLY,
    "notifications_duejob_change": Page((OK, NO), (OK, NO)),
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
}
"""The permission that each action needs, besides that to look."""
UNSEEN = {"tally", "heartbeat", "alert"}
"""Models without a page: what is seen of them is on the overview and in the metrics."""


@dataclass(frozen=True)
class Rows:
    """One row of each kind, in a state in which every operation would find something to do."""

    dead: NotificationRecord
    waiting: NotificationRecord
    channel: UserNotificationChannel
    rejected: RejectedRequest
    operation: ReplayOperation
    job: DueJob
    stranger: User

    def of(self, model: str, action: str = "") -> Any:
        """Return the row of a model, by its name in an address, that the action would change."""
        record = self.dead if action in ("", "replay") else self.waiting
        rows = {"notificationrecord": record, "usernotificationchannel": self.channel}
        return (rows | {"replayoperation": self.operation, "duejob": self.job}).get(model, self.rejected)


@pytest.fixture
def rows(db: None, monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.setattr(api, "nudge", lambda: None)
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
        operation=replays.create_operation(Criteria(), None, "mended"),
        job=DueJob.objects.create(
            key="job", event="active_schedule.triggered", payload={}, run_at=timezone.now(), next_run_at=timezone.now()
        ),
        stranger=User.objects.create(username="stranger"),
    )


@pytest.fixture
def browser(db: None) -> Callable[..., Client]:
    """Return a function that gives the browser of one of PEOPLE, with further permissions."""

    def browse(person: str, *more: str, strict: bool = False) -> Client:
        client = Client(enforce_csrf_checks=strict)
        if fields := PEOPLE[person]:
            given = {"is_staff": True} | fields
            codes = {*given.pop("permissions"), *more}
            user = User.objects.create(username=person, **given)  # no password, which would take long to hash
            permissions = Permission.objects.filter(codename__in=codes)
            assert permissions.count() == len(codes)
            user.user_permissions.set(permissions)
            client.force_login(user)
        return client

    return browse


def stored() -> list[list[dict[str, Any]]]:
    """Return everything that is in the app's tables."""
    models: Any = (NotificationRecord, DeliveryAttempt, UserNotificationChannel, RejectedRequest, ReplayOperation)
    models = (*models, DueJob)
    return [list(model._default_manager.order_by("pk").values()) for model in models]


def address(name: str, rows: Rows) -> str:
    _app, model, view = name.split("_")
    with_key = view in ("change", "delete", "history", "cancel")
    return reverse(f"admin:{name}", args=[rows.of(model).pk] if with_key else [])


def form(name: str, rows: Rows) -> dict[str, Any]:
    """Return what makes a POST to this address take effect, where it may."""
    channel = {"auth_type": "none", "new_webhook_url": f"{ADDRESS}x"}
    record = {"status": "sent", "dedupe_key": "forged", "user": rows.stranger.pk, "max_attempts": 1}
    channels: dict[str, dict[str, Any]] = {
        "notifications_usernotificationchannel_add": channel | {"user": rows.stranger.pk, "channel": "feishu"},
        "notifications_usernotificationchannel_change": channel,
        "notifications_replayoperation_add": {"counted": "{}", "as_of": AS_OF, "reason": "mended", "_start": "yes"},
    }
    return channels.get(name, {"post": "yes", "_save": "Save", "source": "forged", **record})


def operation(model: str, action: str, rows: Rows) -> dict[str, Any]:
    """Return what confirms an action on the one row that it would change."""
    row = rows.of(model, action)
    confirmed = {"confirm": "yes", "reason": "because", "newest": row.pk, "post": "yes"}
    return {"action": action, "_selected_action": row.pk, "index": 0, **confirmed}


def outcome(response: Any) -> str | int:
    """Return the status, or that it leads to the login."""
    login = response.status_code == BACK and response["Location"].startswith("/admin/login/")
    return LOGIN if login else response.status_code


def names_of_the_app() -> set[str]:
    """Return the names of all addresses the app has under the admin."""
    root: Any = get_resolver()
    [admin_urls] = [item for item in root.url_patterns if getattr(item, "namespace", "") == "admin"]
    ours = [item for item in admin_urls.url_patterns if str(item.pattern).startswith("notifications/")]
    views = [view for item in ours for view in item.url_patterns]
    # Without a name there is only Django's own redirect of an old address to the page.
    assert {str(view.pattern) for view in views if not view.name} == {"<path:object_id>/"}
    return {view.name for view in views if view.name}


class TestTables:
    def test_every_address_of_the_app_is_in_the_table(self) -> None:
        assert names_of_the_app() == set(PAGES)

    def test_every_model_with_an_admin_is_reached(self) -> None:
        registered = {
            model._meta.model_name for model in admin.site._registry if model._meta.app_label == "notifications"
        }

        assert {name.split("_")[1] for name in PAGES} == registered
        assert registered | {"deliveryattempt", *UNSEEN} == {
            model._meta.model_name for model in apps.get_app_config("notifications").get_models()
        }

    def test_every_action_is_in_the_table(self) -> None:
        request = RequestFactory().get("/")
        request.user = User(is_active=True, is_staff=True, is_superuser=True)

        found = {
            (model._meta.model_name, action)
            for model, model_admin in admin.site._registry.items()
            if model._meta.app_label == "notifications"
            for action in model_admin.get_actions(request)
        }

        assert found == set(ACTIONS)

    def test_nobody_is_offered_an_action_without_its_permission(self) -> None:
        request = RequestFactory().get("/")
        for request.user in (AnonymousUser(), User.objects.create(username="bare", is_staff=True)):
            for model, model_admin in admin.site._registry.items():
                if model._meta.app_label == "notifications":
                    assert not model_admin.get_actions(request)


class TestPages:
    @pytest.mark.parametrize("name", PAGES)
    @pytest.mark.parametrize("person", PEOPLE)
    def test_each_opens_to_whom_it_should_and_changes_nothing_by_a_look(
        self, browser: Callable[..., Client], rows: Rows, person: str, name: str
    ) -> None:
        client, before, url = browser(person), stored(), address(name, rows)

        looked = [client.get(url), client.get(url, form(name, rows)), client.head(url)]

        expected = OUTSIDERS[person] if person in OUTSIDERS else getattr(PAGES[name], person)[0]
        assert [outcome(response) for response in looked[::2]] == [expected] * 2
        assert stored() == before

    @pytest.mark.parametrize("name", PAGES)
    @pytest.mark.parametrize("person", PEOPLE)
    def test_each_takes_a_post_from_whom_it_should(
        self, browser: Callable[..., Client], rows: Rows, person: str, name: str
    ) -> None:
        client, before = browser(person), stored()

        response = client.post(address(name, rows), form(name, rows))

        expected = OUTSIDERS[person] if person in OUTSIDERS else getattr(PAGES[name], person)[1]
        assert outcome(response) == expected
        assert (stored() != before) == (PAGES[name].changes and person == "superuser")

    @pytest.mark.parametrize("name", PAGES)
    @pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
    def test_no_other_method_changes_anything(
        self, browser: Callable[..., Client], rows: Rows, name: str, method: str
    ) -> None:
        client, before = browser("superuser"), stored()

        getattr(client, method)(address(name, rows))

        assert stored() == before

    @pytest.mark.parametrize("name", PAGES)
    def test_a_post_without_its_token_is_refused(self, browser: Callable[..., Client], rows: Rows, name: str) -> None:
        client, before, url = browser("superuser", strict=True), stored(), address(name, rows)
        client.get(url)  # even with the cookie

        response = client.post(url, form(name, rows))

        assert response.status_code == NO
        assert stored() == before


class TestActions:
    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    @pytest.mark.parametrize("person", PEOPLE)
    def test_each_is_done_for_whom_it_should(
        self, browser: Callable[..., Client], rows: Rows, person: str, model: str, action: str
    ) -> None:
        client, before = browser(person), stored()
        url = reverse(f"admin:notifications_{model}_changelist")

        response = client.post(url, operation(model, action, rows))

        if person in OUTSIDERS:
            assert outcome(response) == OUTSIDERS[person]
        elif person == "viewer" and model == "notificationrecord":
            assert outcome(response) == NO
        assert (stored() != before) == (person == "superuser")

    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    @pytest.mark.parametrize("given", ACTIONS.values())
    def test_each_takes_its_own_permission_and_no_other(
        self, browser: Callable[..., Client], rows: Rows, model: str, action: str, given: str
    ) -> None:
        client, before = browser("viewer", given), stored()
        url = reverse(f"admin:notifications_{model}_changelist")

        client.post(url, operation(model, action, rows))

        assert (stored() != before) == (given == ACTIONS[model, action])

    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    def test_none_is_done_by_a_get(self, browser: Callable[..., Client], rows: Rows, model: str, action: str) -> None:
        client, before = browser("superuser"), stored()

        for view in ("changelist", "change"):
            client.get(address(f"notifications_{model}_{view}", rows), operation(model, action, rows))

        assert stored() == before

    @pytest.mark.parametrize(("model", "action"), ACTIONS)
    def test_none_is_done_without_the_token_of_the_form(
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
"""What the HTTP API does, and what has to be said for it to take effect."""
CHANGES = [operation for operation in OPERATIONS if operation[0] != "get"]


class TestHttpApi:
    """It knows no permissions: whoever is signed in has their own channel and notifications, and nobody else's."""

    @pytest.fixture(autouse=True)
    def sent(self, change: Callable[..., None]) -> Any:
        """Return what test messages were sent."""
        change(PROVIDERS={"feishu": "notifications.providers.memory.MemoryProvider"})
        provider: Any = get_provider("feishu")
        return provider.requests

    def ask(self, client: Client, operation: tuple[str, str], **headers: str) -> Any:
        method, url = operation
        if method == "get":
            return client.get(url, headers=headers)
        return getattr(client, method)(url, OPERATIONS[operation], content_type="application/json", headers=headers)

    def test_every_operation_is_in_the_table(self) -> None:
        paths = http_api.get_openapi_schema()["paths"]

        assert {(method, path) for path, methods in paths.items() for method in methods} == set(OPERATIONS)

    @pytest.mark.parametrize("operation", OPERATIONS)
    @pytest.mark.parametrize("strict", [False, True])
    def test_nobody_signed_in_is_told_to_sign_in_and_nothing_changes(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str], strict: bool
    ) -> None:
        before = stored()

        response = self.ask(browser("anonymous", strict=strict), operation)

        assert response.status_code == 401
        assert response.json() == {"errors": [{"field": "", "message": "Sign in first."}]}
        assert stored() == before

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_who_was_switched_off_is_nobody(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str]
    ) -> None:
        client, before = browser("user"), stored()
        User.objects.filter(username="user").update(is_active=False)

        assert self.ask(client, operation).status_code == 401
        assert stored() == before

    @pytest.mark.parametrize("operation", OPERATIONS)
    @pytest.mark.parametrize("person", [person for person in PEOPLE if person != "anonymous"])
    def test_everybody_has_their_own_and_nobody_elses(
        self, browser: Callable[..., Client], rows: Rows, person: str, operation: tuple[str, str], sent: list[Any]
    ) -> None:
        client = browser(person)
        user = User.objects.get(username=person)
        own = UserNotificationChannel.objects.create(user=user, webhook_url=ADDRESS.replace("canary", "myown0"))
        record = make_record(user_id=user.pk)

        def others() -> list[dict[str, Any]]:
            return [row for table in stored() for row in table if row.get("user_id", user.pk) != user.pk]

        before = others()

        response = self.ask(client, operation)

        assert response.status_code in (200, 204)
        assert others() == before
        assert "cana...6789" not in response.content.decode() or operation[0] == "put"
        assert {request.user_id for request in sent} <= {user.pk}
        if operation == ("get", "/api/notifications"):
            assert [item["id"] for item in response.json()["items"]] == [record.pk]
        if operation == ("delete", CHANNEL):
            assert not UserNotificationChannel.objects.filter(pk=own.pk).exists()

    @pytest.mark.parametrize("operation", CHANGES)
    def test_a_change_without_its_token_is_refused(
        self, browser: Callable[..., Client], rows: Rows, operation: tuple[str, str]
    ) -> None:
        client = browser("user", strict=True)
        user = User.objects.get(username="user")
        UserNotificationChannel.objects.create(user=user, webhook_url=ADDRESS)
        before = stored()

        without = self.ask(client, operation)
        token = client.get(CHANNEL).cookies["csrftoken"].value  # any answer brings it
        with_cookie, forged = self.ask(client, operation), self.ask(client, operation, **{"X-CSRFToken": "x" * 64})
        foreign = self.ask(client, operation, **{"X-CSRFToken": token, "Origin": "https://evil.example"})

        for response in (without, with_cookie, forged, foreign):
            assert response.status_code == NO
            assert "X-CSRFToken" in response.json()["errors"][0]["message"]
        assert stored() == before

        assert self.ask(client, operation, **{"X-CSRFToken": token}).status_code in (200, 204)
        assert stored() != before

    @pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options", "trace"])
    @pytest.mark.parametrize("url", sorted({url for _method, url in OPERATIONS}))
    def test_no_other_method_changes_anything(
        self, browser: Callable[..., Client], rows: Rows, method: str, url: str
    ) -> None:
        if (method, url) in OPERATIONS:
            return
        client, before = browser("superuser"), stored()

        assert getattr(client, method)(url).status_code == 405
        assert stored() == before
