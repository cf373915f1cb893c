"""Hostile text on every admin page: no script runs, no bidi control takes effect, and pages stay small."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.db import models
from django.test import Client
from django.utils import timezone

from notifications.models import (
    DeliveryAttempt,
    NotificationRecord,
    RejectedRequest,
    ReplayOperation,
    UserNotificationChannel,
)
from notifications.service import NotificationService
from notifications.states import Outcome
from tests.support.factories import make_attempt, make_record

pytestmark = pytest.mark.django_db

ROOT = "/admin/notifications/"
MAX_PAGE_BYTES = 300_000
"""Maximum size in bytes of a page with a few rows."""
OURS = ("channel", "source", "webhook_url", "bearer_token")
"""Columns that only the app's own code writes."""
MARKS = "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C]))
CONTROLS = "".join(map(chr, [*range(1, 9), 0x0B, *range(0x0E, 0x20), *range(0x7F, 0x85), *range(0x86, 0xA0)]))
HOSTILE = {
    "script": "<script>canary()</script>",
    "attribute": "\"'><img src=x onerror=canary()>",
    "attribute without tag": "' onmouseover='canary()' x=\" onfocus=\"canary()",
    "end of block": "</pre></title></textarea></style></script><script>canary()</script>",
    "comment": "--><script>canary()</script><!--",
    "link": "javascript:canary()",
    "template": "{{ canary }}{% load canary %}{#",
    "escaped already": "&lt;script&gt;canary()&#60;/script&#62;",
    "full-width": "＜script＞canary()＜/script＞",
    "turned around": f"safe{MARKS}gnp.exe",
    "controls": f"a{CONTROLS}b",
    "long": "W" * 100_000,
    "wide": "﷽" * 100_000,
    "one line of many": "x\n" * 50_000,
}


class PageParser(HTMLParser):
    """Parses a page as a browser does. Collects what would be executed and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.executed: list[str] = []
        self.visible_text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else self._inside
        for name, value in attrs:
            active = name.startswith("on") or (name in ("href", "src", "action") and "javascript:" in (value or ""))
            if active or "canary" in name or (tag == "script" and "canary" in (value or "")):
                self.executed.append(f"<{tag} {name}={value}>")

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.executed += [data] if "canary" in data else []
        else:
            self.visible_text += data


def fill(model: type[models.Model], text: str) -> dict[str, Any]:
    """Return the text, truncated to the column, for every column that holds external input."""
    return {
        field.name: text[: field.max_length]
        for field in model._meta.get_fields()
        if isinstance(field, (models.CharField, models.TextField)) and not field.choices and field.name not in OURS
    }


@pytest.fixture
def pages(admin_client: Client, admin_user: User) -> Callable[[str], dict[str, Any]]:
    """Return a function that stores a text in every possible place and returns all pages by name."""

    def build(text: str, language: str = "en") -> dict[str, Any]:
        name = text.replace("\n", " ")[:150]
        user = User.objects.create(username=name, first_name=name, last_name=name, email=name)
        fields = fill(NotificationRecord, text) | {"dedupe_key": text[:180]}
        payload = {"provider_request": {text[:20_000]: text}, "provider_response": [text, {"a": text}]}
        dead = make_record("dead", user_id=user.pk, **fields, **payload)
        for number in range(5):
            make_attempt(dead, number + 1, **fill(DeliveryAttempt, text), outcome=Outcome.TEMPORARY_FAIL)
        waiting = make_record("failed", user_id=user.pk, **fields | {"dedupe_key": f"2{text[:180]}"})
        channel = UserNotificationChannel.objects.create(
            user=user,
            webhook_url="https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh",
            paused_at=timezone.now(),
            last_test_at=timezone.now(),
            **fill(UserNotificationChannel, text),
        )
        errors = [{"field": text, "reason": text}] * 3 + [{"field": text[:60], "reason": "is not known"}] * 9_000
        rejected = RejectedRequest.objects.create(source="x", errors=errors, **fill(RejectedRequest, text))
        for one in (channel, rejected):
            LogEntry.objects.log_actions(admin_user.pk, [one], CHANGE, change_message="")
        replayed = make_record("dead", user_id=user.pk, **fields | {"dedupe_key": f"3{text[:180]}"})
        NotificationService().replay(NotificationRecord.objects.filter(pk=replayed.pk), admin_user, text[:500])
        wanted = dict.fromkeys(("search", "dedupe_key", "trace_id", "preview_id"), text[:191])
        operation = ReplayOperation.objects.create(
            created_by=user, as_of=timezone.now(), matched=1, criteria=wanted, **fill(ReplayOperation, text)
        )
        LogEntry.objects.log_actions(admin_user.pk, [operation], CHANGE, change_message="")
        admin_client.defaults["HTTP_ACCEPT_LANGUAGE"] = language
        responses = {"index": admin_client.get("/admin/"), "app": admin_client.get(ROOT)}
        for row in (dead, channel, rejected):
            model = f"{row._meta.model_name}"
            views = ("change", "history") if row is dead else ("change", "history", "delete")
            responses[model] = admin_client.get(f"{ROOT}{model}/")
            responses |= {f"{model} {view}": admin_client.get(f"{ROOT}{model}/{row.pk}/{view}/") for view in views}
        for action, model, chosen in (
            ("replay", "notificationrecord", dead.pk),
            ("cancel", "notificationrecord", waiting.pk),
            ("delete_selected", "usernotificationchannel", channel.pk),
            ("delete_selected", "rejectedrequest", rejected.pk),
        ):
            asked = {
                "action": action,
                "_selected_action": chosen,
                "from_record": text[:500],
                "select_across": text[:500],
            }
            responses[f"{action} {model}"] = admin_client.post(f"{ROOT}{model}/", asked | {"index": 0})
        responses["replayed"] = admin_client.get(f"{ROOT}notificationrecord/{replayed.pk}/history/")
        responses["operations"] = admin_client.get(f"{ROOT}replayoperation/")
        for view in ("change", "history"):
            responses[f"operation {view}"] = admin_client.get(f"{ROOT}replayoperation/{operation.pk}/{view}/")
        responses["replay form"] = admin_client.get(f"{ROOT}replayoperation/add/", wanted)
        responses["count"] = admin_client.get(f"{ROOT}replayoperation/add/", {"channel": ""})
        responses["search"] = admin_client.get(f"{ROOT}notificationrecord/", {"q": text[:500]})
        return responses

    return build


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_each_page_escapes_hostile_text(pages: Callable[..., dict[str, Any]], kind: str, language: str) -> None:
    responses = pages(HOSTILE[kind], language)

    assert {name: response.status_code for name, response in responses.items()} == dict.fromkeys(responses, 200)
    assert {response.headers["Content-Language"] for response in responses.values()} == {language}
    parsed = {name: PageParser(response.content.decode()) for name, response in responses.items()}
    assert {name: page.executed for name, page in parsed.items() if page.executed} == {}
    seen = set(MARKS + CONTROLS)
    assert {name: seen & set(page.visible_text) for name, page in parsed.items() if seen & set(page.visible_text)} == {}
    sizes = {name: len(response.content) for name, response in responses.items()}
    assert {name: size for name, size in sizes.items() if size > MAX_PAGE_BYTES} == {}


def test_html_parser_detects_executed_content() -> None:
    html = "<p onclick=canary()>a</p><script>canary()</script><a href='javascript:canary()'>b</a><p canary>c</p>"

    page = PageParser(html)

    assert len(page.executed) == 4
    assert page.visible_text == "abc"
