"""A confirmation of the admin that is sent after the session has ended: nothing is done, and nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from notifications.admin import kept_input
from notifications.models import NotificationRecord, RejectedRequest, ReplayOperation, UserNotificationChannel
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
from tests.support.factories import LIST, make_record

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"
ADD = "/admin/notifications/replayoperation/add/"
CHANNELS = "/admin/notifications/usernotificationchannel/"
REJECTED = "/admin/notifications/rejectedrequest/"
REASON = "接入点已修复 <b>"


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifications.broker.nudge._publish", lambda task: None)


@pytest.fixture
def operators(make_user: Callable[..., User]) -> None:
    """Two operators with the password "pw": root may do everything, reader may only see notifications."""
    make_user("root", is_staff=True, is_superuser=True)
    make_user("reader", is_staff=True).user_permissions.set(
        Permission.objects.filter(codename="view_notificationrecord")
    )


def log_in(client: Client, login: Any, name: str = "root") -> Any:
    """Log in at the page to which a response redirects, and return the page that opens."""
    page = client.get(login["Location"])
    assert page.status_code == 200
    token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    fields = {"username": name, "password": "pw", "next": page.context["next"]} | token
    return client.post(LOGIN, fields, follow=True)


def browser(*, strict: bool = False) -> Client:
    """Return a client with a session of root."""
    client = Client(enforce_csrf_checks=strict)
    client.force_login(User.objects.get(username="root"))
    return client


def end_sessions() -> None:
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def confirmation(*records: NotificationRecord, **data: Any) -> dict[str, Any]:
    """Return what the confirmation page posts."""
    chosen = [record.pk for record in records]
    answer = {"select_across": "0", "from_record": "", "newest": max(chosen), "reason": REASON, "confirm": "Replay"}
    return {"action": "replay", "_selected_action": chosen} | answer | data


def texts(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def entered(response: Any) -> dict[str, Any]:
    """Return what the form of a page would post."""
    form: dict[str, Any] = {}
    html = response.content.decode().partition('<form method="post"')[2]
    for name in ("action", "newest", "from_record", "select_across"):
        form[name] = re.findall(f'name="{name}" value="(.*?)"', html)[0]
    form["_selected_action"] = re.findall('name="_selected_action" value="(.*?)"', html)
    form["reason"] = response.context["form"]["reason"].value()
    return form


@pytest.mark.usefixtures("operators")
class TestRecords:
    def test_confirmation_opens_again_as_it_was_filled_in(self) -> None:
        first, second, other = make_record(), make_record(), make_record()
        client = browser()
        url = f"{LIST}?status__exact=dead"
        client.get(url)
        end_sessions()

        refused = client.post(url, confirmation(first, second, force="on"))
        said = texts(client.get(refused["Location"]))
        page = log_in(client, refused)

        assert said == [str(kept_input.KEPT)]
        assert page.request["PATH_INFO"] + "?" + page.request["QUERY_STRING"] == url
        assert page.context["title"] == "Replay notifications"
        assert texts(page) == [str(kept_input.FILLED_IN)]
        assert page.context["form"].errors == {}
        assert page.context["form"]["reason"].value() == REASON
        assert page.context["form"]["force"].value() is True
        assert page.context["selected_count"] == 2
        assert set(NotificationRecord.objects.values_list("status", flat=True)) == {"dead"}

        done = client.post(url, entered(page) | {"confirm": "Replay"}, follow=True)
        assert texts(done) == ["2 notifications are sent again."]
        assert {record.pk for record in NotificationRecord.objects.filter(status="dead")} == {other.pk}

    @pytest.mark.parametrize("action", ["replay", "cancel", "send_now"])
    def test_selection_in_the_list_is_kept_for_every_operation(self, action: str) -> None:
        record = make_record("dead" if action == "replay" else "failed")
        client = browser()
        end_sessions()

        page = log_in(client, client.post(LIST, {"action": action, "_selected_action": record.pk, "index": 0}))

        assert page.context["operation"].name == action
        assert page.context["selected"] == [str(record.pk)]
        record.refresh_from_db()
        assert record.status in ("dead", "failed")

    def test_input_is_filled_in_once(self) -> None:
        client = browser()
        end_sessions()
        log_in(client, client.post(LIST, confirmation(make_record())))

        page = client.get(LIST)

        assert "cl" in page.context
        assert texts(page) == []

    def test_input_is_filled_in_only_where_it_was_entered(self) -> None:
        client = browser()
        end_sessions()
        client.post(LIST, confirmation(make_record()))
        client.force_login(User.objects.get(username="root"))

        other = client.get(f"{LIST}?status__exact=dead")
        same = client.get(LIST)

        assert "cl" in other.context
        assert "cl" in same.context

    def test_old_input_is_not_filled_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = browser()
        end_sessions()
        refused = client.post(LIST, confirmation(make_record()))

        monkeypatch.setattr(kept_input, "MAX_AGE", 0)  # the cookie itself stays in this browser
        page = log_in(client, refused)

        assert "cl" in page.context

    def test_user_without_the_permission_sees_the_list(self) -> None:
        record = make_record()
        client = browser()
        end_sessions()

        page = log_in(client, client.post(LIST, confirmation(record)), "reader")

        assert (page.status_code, texts(page)) == (200, [])
        assert REASON not in page.content.decode()
        assert kept_input.COOKIE not in client.cookies or not client.cookies[kept_input.COOKIE].value

    def test_input_is_in_no_address_and_not_in_the_database(self) -> None:
        record = make_record()
        client = browser()
        Session.objects.all().delete()

        refused = client.post(LIST, confirmation(record, reason="canary"))

        assert refused["Location"] == f"{LOGIN}?next={LIST}"
        assert not Session.objects.exists()
        cookie = refused.cookies[kept_input.COOKIE]
        assert cookie["httponly"]
        assert (cookie["path"], cookie["samesite"], cookie["max-age"]) == ("/admin/", "Lax", 3600)

    def test_changed_cookie_fills_in_nothing(self) -> None:
        client = browser()
        client.cookies[kept_input.COOKIE] = "x:y:z"

        page = client.get(LIST)

        assert (page.status_code, texts(page)) == (200, [])
        assert "cl" in page.context

    def test_input_too_long_for_a_cookie_is_reported_as_lost(self) -> None:
        client = browser()
        end_sessions()
        long = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(3000))

        refused = client.post(LIST, confirmation(make_record(), reason=long))

        assert texts(client.get(refused["Location"])) == [str(kept_input.NOT_KEPT)]
        assert kept_input.COOKIE not in refused.cookies

    def test_longest_reason_and_the_longest_list_fit(self) -> None:
        records = NotificationRecord.objects.bulk_create(
            NotificationRecord(
                id=900_000_000_000 + number * 977,
                user_id=1,
                dedupe_key=str(number),
                status="dead",
                max_attempts=1,
                next_attempt_at=None,
                target_url="/",
            )
            for number in range(200)
        )
        client = browser()
        end_sessions()
        reason = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(500))

        page = log_in(client, client.post(LIST, confirmation(*records, reason=reason)))

        assert page.context["selected_count"] == 200
        assert page.context["form"]["reason"].value() == reason


@pytest.mark.usefixtures("operators")
class TestReplayForm:
    @pytest.mark.parametrize("button", ["_count", "_start"])
    def test_form_opens_again_as_it_was_filled_in(self, button: str) -> None:
        make_record(updated_at=timezone.now() - timedelta(hours=1))
        client = browser()
        counted = client.post(ADD, {"statuses": "dead", "rate": "60", "_count": "Count"})
        form = {field.name: field.value() for field in counted.context["form"] if field.value()} | {"reason": REASON}
        end_sessions()

        page = log_in(client, client.post(ADD, form | {button: "yes"}))

        assert texts(page) == [str(kept_input.FILLED_IN)]
        again = {field.name: field.value() for field in page.context["form"] if field.value()}
        assert again | {"as_of": ""} == form | {"as_of": ""}
        assert again["as_of"] > form["as_of"]  # counted again
        assert (page.context["count"], page.context["can_start"]) == (1, True)
        assert not ReplayOperation.objects.exists()

        client.post(ADD, again | {"_start": "yes"})
        assert ReplayOperation.objects.get().reason == REASON

    def test_stop_leads_back_to_the_operation(self) -> None:
        operation = create_operation(Criteria(), User.objects.get(username="root"), "x")
        url = f"/admin/notifications/replayoperation/{operation.pk}/"
        client = browser()
        end_sessions()

        refused = client.post(f"{url}cancel/", headers={"Referer": f"http://testserver{url}change/"})
        said = texts(client.get(refused["Location"]))
        page = log_in(client, refused)

        assert said == [str(kept_input.NOT_KEPT)]
        assert page.request["PATH_INFO"] == f"{url}change/"
        operation.refresh_from_db()
        assert operation.status == "queued"

    def test_foreign_referer_leads_nowhere(self) -> None:
        refused = Client().post(CHANNELS, {"action": "resume"}, headers={"Referer": "https://evil.example/"})

        assert refused["Location"] == f"{LOGIN}?next={CHANNELS}"


@pytest.mark.usefixtures("operators")
class TestOtherPages:
    @pytest.mark.parametrize("action", ["send_test", "resume"])
    def test_button_of_a_channel_leads_back_to_its_page(self, action: str) -> None:
        channel = UserNotificationChannel.objects.create(
            user=User.objects.get(username="reader"), enabled=False, paused_at=timezone.now()
        )
        page_url = f"{CHANNELS}{channel.pk}/change/"
        client = browser()
        end_sessions()
        fields = {"action": action, "_selected_action": channel.pk, "from_page": "1"}

        page = log_in(client, client.post(CHANNELS, fields, headers={"Referer": f"http://testserver{page_url}"}))

        assert page.request["PATH_INFO"] == page_url
        channel.refresh_from_db()
        assert channel.paused_at
        assert channel.last_test_at is None

    @pytest.mark.parametrize("more", [{}, {"action": "delete_selected"}])
    def test_form_of_a_channel_is_not_kept(self, more: dict[str, str]) -> None:
        client = browser()
        end_sessions()
        secret = {"new_webhook_url": "https://open.feishu.cn/open-apis/bot/v2/hook/canary", "_save": "Save"}

        refused = client.post(f"{CHANNELS}add/", secret | more)

        assert kept_input.COOKIE not in refused.cookies
        assert texts(client.get(refused["Location"])) == [str(kept_input.NOT_KEPT)]

    def test_mixed_actions_are_not_kept(self) -> None:
        client = browser()
        end_sessions()

        refused = client.post(CHANNELS, {"action": ["send_test", "delete_selected"], "_selected_action": 1})

        assert kept_input.COOKIE not in refused.cookies

    def test_deletion_of_a_selection_asks_again(self) -> None:
        rejected = RejectedRequest.objects.create(source="x", payload="{}", errors=[])
        client = browser()
        end_sessions()
        fields = {"action": "delete_selected", "_selected_action": rejected.pk, "post": "yes"}

        page = log_in(client, client.post(REJECTED, fields))

        assert page.context["deletable_objects"] or page.context["queryset"]
        assert RejectedRequest.objects.exists()
        client.post(REJECTED, fields)
        assert not RejectedRequest.objects.exists()


@pytest.mark.usefixtures("operators")
class TestCsrfToken:
    """The token of a page that was opened before another login."""

    def outdated(self, client: Client) -> dict[str, str]:
        client.get(LIST)
        token = client.cookies["csrftoken"].value
        client.logout()
        client.get(LOGIN)
        log_in(client, client.get(LIST))
        return {"csrfmiddlewaretoken": token}

    def test_confirmation_opens_again_as_it_was_filled_in(self) -> None:
        record, client = make_record(), browser(strict=True)
        old = self.outdated(client)

        page = client.post(LIST, confirmation(record) | old, headers={"Origin": "http://testserver"}, follow=True)

        assert page.status_code == 200
        assert texts(page) == [str(kept_input.FILLED_IN)]
        assert page.context["form"]["reason"].value() == REASON
        record.refresh_from_db()
        assert record.status == "dead"

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver:81", None])
    def test_foreign_site_fills_in_nothing(self, origin: str | None) -> None:
        record, client = make_record(), browser(strict=True)
        fields = confirmation(record) | self.outdated(client)
        headers = {"Origin": origin} if origin else {}

        for sender in (client, Client(enforce_csrf_checks=True)):
            response = sender.post(LIST, fields, headers=headers)
            assert response.status_code == 403
            assert kept_input.COOKIE not in response.cookies

    def test_views_outside_the_app_keep_djangos_page(self) -> None:
        client = browser(strict=True)

        assert client.post(LOGIN, {}, headers={"Origin": "http://testserver"}).status_code == 403
