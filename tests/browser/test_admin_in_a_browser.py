"""Workflows of an operator in the admin, in a real browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import cast

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.utils import timezone
from playwright.sync_api import Browser, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

from dev import browser as installed
from dev.pictures import log_in
from notifications.api import request_notification
from notifications.models import NotificationRecord
from notifications.replay import runner as replay_runner
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
from tests.support.factories import make_attempt, make_record
from tests.support.payloads import payload

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(installed.find() is None and not os.environ.get("CI"), reason="no Chromium on this machine"),
]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    # Playwright runs an event loop in this thread, and Django refuses database access beside a running loop.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with sync_playwright() as playwright, installed.launch(playwright) as running:
        opened = running.new_page(locale="en-US")
        console_errors: list[str] = []
        opened.on("console", lambda message: console_errors.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: console_errors.append(str(error)))
        yield opened
        connections.close_all()  # connections opened beside the event loop are not closed by pytest-django
        assert console_errors == []


@pytest.fixture
def dead(make_user: Callable[..., User]) -> NotificationRecord:
    """A dead record."""
    user = make_user("reader")
    record = NotificationRecord.objects.get(pk=request_notification(payload(user_id=user.pk)).record_id)
    NotificationRecord.objects.update(status="dead", next_attempt_at=None, last_error_code="provider_config")
    return record


def operator(make_user: Callable[..., User], *permissions: str) -> User:
    user = make_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def test_operator_replays_a_dead_record(
    page: Page, live_server: LiveServer, make_user: Callable[..., User], dead: NotificationRecord
) -> None:
    operator(make_user, "view_notificationrecord", "view_deliveryattempt", "replay_notificationrecord")
    log_in(page, f"{live_server.url}/admin/", "operator", "pw")

    page.goto(f"{live_server.url}/admin/notifications/notificationrecord/?q={dead.dedupe_key}")
    page.check("input[name=_selected_action]")
    page.select_option("select[name=action]", "replay")
    page.click("button[name=index]")
    page.fill("[name=reason]", "the bot was added again")
    page.click("[type=submit] >> nth=-1")

    page.wait_for_url("**/notificationrecord/**")
    dead.refresh_from_db()
    assert (dead.status, dead.round) == ("pending", 1)
    assert "1" in page.inner_text(".messagelist")


def test_confirmation_survives_the_end_of_the_session(
    page: Page, live_server: LiveServer, make_user: Callable[..., User], dead: NotificationRecord
) -> None:
    operator(make_user, "view_notificationrecord", "replay_notificationrecord")
    log_in(page, f"{live_server.url}/admin/", "operator", "pw")
    page.goto(f"{live_server.url}/admin/notifications/notificationrecord/?q={dead.dedupe_key}")
    page.check("input[name=_selected_action]")
    page.select_option("select[name=action]", "replay")
    page.click("button[name=index]")
    page.fill("[name=reason]", "the bot was added again")
    page.context.clear_cookies(name="sessionid")

    page.click("[type=submit] >> nth=-1")
    assert "nothing was done" in page.inner_text(".messagelist")
    page.fill("#id_username", "operator")
    page.fill("#id_password", "pw")
    page.click("input[type=submit]")

    assert "Nothing has been done yet" in page.inner_text(".messagelist")
    assert page.input_value("[name=reason]") == "the bot was added again"
    dead.refresh_from_db()
    assert dead.status == "dead"

    page.click("[type=submit] >> nth=-1")
    page.wait_for_url("**/notificationrecord/?q=*")
    dead.refresh_from_db()
    assert (dead.status, dead.round) == ("pending", 1)


def test_view_permission_offers_no_action(
    page: Page, live_server: LiveServer, make_user: Callable[..., User], dead: NotificationRecord
) -> None:
    operator(make_user, "view_notificationrecord")
    log_in(page, f"{live_server.url}/admin/", "operator", "pw")

    page.goto(f"{live_server.url}/admin/notifications/notificationrecord/{dead.pk}/change/")

    assert page.query_selector("text=provider_config")
    assert page.get_by_role("button").filter(has_text="Replay").count() == 0
    page.goto(f"{live_server.url}/admin/notifications/notificationrecord/")
    assert page.query_selector("select[name=action]") is None


@pytest.fixture
def many_dead(make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch) -> None:
    """More dead records than one page of the list shows, batches of 20, and no broker."""
    monkeypatch.setattr("notifications.broker.nudge._publish", lambda task, queue: None)
    monkeypatch.setattr(replay_runner, "MAX_BATCH_RECORDS", 20)
    for _ in range(60):
        make_record(last_error_code="provider_5xx", updated_at=timezone.now() - timedelta(hours=1))
    make_record(last_error_code="provider_config")
    operator(make_user, "view_notificationrecord", "replay_notificationrecord")


def replay_whole_list(page: Page, site: str) -> None:
    """Replay all records of one error code from the list."""
    page.goto(f"{site}/admin/notifications/notificationrecord/?code=provider_5xx")
    page.check("#action-toggle")
    page.click(".actions .question a")
    page.select_option("select[name=action]", "replay")
    page.click("button[name=index]")
    assert "60 notifications match" in page.inner_text("#n-count")
    page.fill("[name=reason]", "the endpoint was fixed")
    page.fill("[name=rate]", "")
    page.click("[name=_start]")
    page.wait_for_selector("text=0 of 60 replayed")


def test_replay_of_a_list_shows_progress_and_can_be_stopped(
    page: Page, live_server: LiveServer, many_dead: None
) -> None:
    log_in(page, f"{live_server.url}/admin/", "operator", "pw")
    replay_whole_list(page, live_server.url)

    replay_runner.run_next_batch()
    page.wait_for_selector("text=20 of 60 replayed")
    page.reload()
    page.wait_for_selector("text=20 of 60 replayed")
    assert page.locator("progress").get_attribute("value") == "33"
    page.click("text=Stop this replay")

    page.wait_for_selector("text=The replay was stopped.")
    assert not replay_runner.run_next_batch()
    page.click("text=Replayed notifications")
    page.wait_for_selector("text=20 notifications")
    assert NotificationRecord.objects.filter(status="pending").count() == 20


def test_progress_refreshes_without_javascript(page: Page, live_server: LiveServer, many_dead: None) -> None:
    log_in(page, f"{live_server.url}/admin/", "operator", "pw")
    replay_whole_list(page, live_server.url)
    plain = cast(Browser, page.context.browser).new_context(java_script_enabled=False, locale="en-US").new_page()
    log_in(plain, f"{live_server.url}/admin/", "operator", "pw")
    plain.goto(page.url)
    page.close()

    while replay_runner.run_next_batch():
        pass

    plain.wait_for_selector("text=60 of 60 replayed")
    assert plain.locator("button", has_text="Stop this replay").count() == 0


@pytest.mark.parametrize("width", [1500, 700])
def test_attempts_fit_a_wide_window_and_scroll_in_a_narrow_one(
    page: Page, live_server: LiveServer, make_user: Callable[..., User], dead: NotificationRecord, width: int
) -> None:
    text = "code 19001: param invalid: incoming webhook access token invalid"
    make_attempt(
        dead, cause="replay", error=text, response_excerpt=f'{{"msg": "{text}"}}', worker="worker-7.example:41"
    )
    make_attempt(dead, 2, outcome="lost", error_code="provider_rate_limited", error="x" * 300, duration_ms=12_345)
    operator(make_user, "view_notificationrecord")
    page.set_viewport_size({"width": width, "height": 850})
    log_in(page, f"{live_server.url}/admin/", "operator", "pw")

    page.goto(f"{live_server.url}/admin/notifications/notificationrecord/{dead.pk}/change/")

    hidden = "element => element.scrollWidth - element.clientWidth"
    assert page.locator(".n-attempts .n-scroll").evaluate(hidden) <= 0 or width < 1500
    assert page.locator("html").evaluate(hidden) <= 0


@pytest.mark.parametrize("width", [1500, 390])
def test_overview_links_to_dead_records_and_fits_a_phone(
    page: Page, live_server: LiveServer, make_user: Callable[..., User], dead: NotificationRecord, width: int
) -> None:
    operator(make_user, "view_notificationrecord")
    browser = page.context.browser
    assert browser
    plain = browser.new_page(java_script_enabled=False, viewport={"width": width, "height": 850}, color_scheme="dark")
    log_in(plain, f"{live_server.url}/admin/", "operator", "pw")

    plain.goto(f"{live_server.url}/admin/notifications/")

    assert plain.locator("html").evaluate("element => element.scrollWidth - element.clientWidth") <= 0
    assert plain.locator(".n-problems").get_by_text("1 notification became dead").count() == 1
    plain.get_by_role("link", name="Show dead notifications").click()
    assert plain.get_by_role("link", name=dead.dedupe_key).count() == 1


def test_pages_need_nothing_that_the_content_security_policy_forbids(
    page: Page, live_server: LiveServer, admin_user: User, dead: NotificationRecord
) -> None:
    """The fixture `page` fails for each violation, which Chromium reports as an error of the console."""
    log_in(page, f"{live_server.url}/admin/", "admin", "password")
    make_attempt(dead)
    operation = create_operation(Criteria(), admin_user, "reason")
    for path in (
        *("admin/", "admin/notifications/", "admin/notifications/notificationrecord/", "api/docs"),
        f"admin/notifications/notificationrecord/{dead.pk}/change/",
        *("admin/notifications/usernotificationchannel/add/", "admin/notifications/rejectedrequest/"),
        *("admin/notifications/duejob/", "admin/notifications/replayoperation/add/?statuses=dead"),
        f"admin/notifications/replayoperation/{operation.pk}/change/",
    ):
        response = page.goto(f"{live_server.url}/{path}")

        assert response is not None, path
        assert response.ok, path
        policy = response.header_value("content-security-policy") or ""
        assert "default-src 'self'" in policy, path
        assert "unsafe" not in policy, path
