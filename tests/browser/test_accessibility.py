"""Accessibility of the app's pages, checked by axe-core: light and dark, desktop and phone, English and Chinese."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone
from playwright.sync_api import sync_playwright
from pytest_django.live_server_helper import LiveServer

from dev import browser as installed
from dev.pictures import log_in
from notifications.models import UserNotificationChannel
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
from notifications.states import HoldReason
from tests.support.factories import make_attempt, make_record

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(installed.find() is None and not os.environ.get("CI"), reason="no Chromium on this machine"),
]

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
LOOKS: dict[str, dict[str, Any]] = {
    "english-desktop": {"locale": "en-US", "color_scheme": "light", "viewport": {"width": 1400, "height": 900}},
    "chinese-phone-dark": {"locale": "zh-CN", "color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}


@pytest.fixture
def addresses(make_user: Callable[..., User]) -> list[str]:
    """URLs of pages that all show some data."""
    make_user("operator", is_staff=True, is_superuser=True)
    owner = make_user("reader")
    dead = make_record(user_id=owner.pk)
    make_attempt(dead)
    make_record("failed", user_id=owner.pk, hold_reason=HoldReason.CHANNEL_PAUSED)
    channel = UserNotificationChannel.objects.create(
        user=owner, webhook_url="https://www.feishu.cn/flow/api/trigger-webhook/0123456789", paused_at=timezone.now(),
        pause_reason="code 19001",
    )  # fmt: skip
    operation = create_operation(Criteria(statuses=("dead",)), None, "the bot is back")
    return [
        "",
        "notificationrecord/",
        f"notificationrecord/{dead.pk}/change/",
        "usernotificationchannel/",
        f"usernotificationchannel/{channel.pk}/change/",
        "replayoperation/",
        "replayoperation/add/",
        f"replayoperation/{operation.pk}/change/",
        "rejectedrequest/",
    ]


@pytest.mark.parametrize("look", LOOKS)
def test_each_page_passes_axe_core(
    monkeypatch: pytest.MonkeyPatch, live_server: LiveServer, addresses: list[str], look: str
) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    found: dict[str, list[str]] = {}
    with sync_playwright() as playwright, installed.launch(playwright) as running:
        page = running.new_page(**LOOKS[look])
        log_in(page, f"{live_server.url}/admin/", "operator", "pw")
        for address in addresses:
            page.goto(f"{live_server.url}/admin/notifications/{address}")
            violations = Axe().run(page, options=RULES).response["violations"]
            found[address or "overview"] = [
                f"{one['id']}: {node['target']} {node['html'][:160]}" for one in violations for node in one["nodes"]
            ]
        connections.close_all()

    assert {address: problems for address, problems in found.items() if problems} == {}
