"""`notify`: anybody can be told anything, and what cannot be sent is refused before anything is stored."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission, User
from django.core import mail
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from notifications import tasks
from notifications.api import (
    DedupeConflict,
    InvalidNotification,
    Mention,
    Recipient,
    anotify,
    cancel,
    notify,
    request_notification,
    reschedule,
    status_of,
)
from notifications.conf import service_options
from notifications.delivery.engine import Engine
from notifications.delivery.held_records import release_and_probe_channels
from notifications.models import NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.monitoring.indicators import Indicators
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.feishu.bot import FeishuBotProvider, MessageParts, build_text
from notifications.providers.memory import MemoryProvider
from notifications.providers.standard_webhooks import StandardWebhookProvider
from notifications.states import Status
from notifications.testing.assertions import assert_not_notified, assert_notified
from tests.support.broker_queues import purge_queue
from tests.support.delivery import Clock, make_engine
from tests.support.factories import LIST
from tests.support.payloads import payload

Change = Callable[..., None]
LATER = datetime(2099, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return User.objects.create_user("alice", email="alice@example.com")


@pytest.fixture
def templates(settings: Settings, tmp_path: Path) -> Callable[..., None]:
    """Return a function that writes the templates of a kind."""
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]

    def write(kind: str, **texts: str) -> None:
        folder = tmp_path / "notifications" / kind
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / f"{name}.{'html' if name == 'html' else 'txt'}").write_text(text)

    return write


def endpoint(label: str = "", channel: str = "feishu", **fields: Any) -> UserNotificationChannel:
    return UserNotificationChannel.objects.create(label=label, channel=channel, **fields)


def problems(*args: Any, **kwargs: Any) -> dict[str, str]:
    """Return why a message is refused, by field, after checking that nothing was stored."""
    with pytest.raises(InvalidNotification) as caught:
        notify(*args, **kwargs)
    assert not NotificationRecord.objects.exists()
    return {name: str(reason) for name, reason in caught.value.errors}


class TestRecipients:
    def test_a_user_gets_the_message_on_each_endpoint_that_is_switched_on(self, user: User) -> None:
        endpoint(user=user)
        labelled = endpoint("team", user=user)
        endpoint(channel="email", user=user)
        endpoint(channel="webhook", user=user, enabled=False)

        results = notify(user, "Your order was shipped.", key="order-1")

        rows = NotificationRecord.objects.order_by("channel", "endpoint_id").values_list("channel", "endpoint_id")
        assert sorted(rows, key=str) == sorted([("email", None), ("feishu", None), ("feishu", labelled.pk)], key=str)
        assert {(result.status, result.reused, result.key) for result in results} == {("pending", False, "order-1")}

    def test_a_user_without_an_endpoint_gets_it_on_the_default_channel(self, user: User, change: Change) -> None:
        change(DEFAULT_CHANNEL="email")

        [result] = notify(user, "Hello")

        assert result.channel == "email"

    @pytest.mark.parametrize("form", ["user", "key", "email", "label", "endpoint", "recipient", "pair"])
    def test_each_form_of_a_recipient_is_taken(self, user: User, form: str) -> None:
        bot = endpoint("on-call", "feishu_bot")
        forms = {
            "user": user,
            "key": user.pk,
            "email": "bob@example.com",
            "label": "on-call",
            "endpoint": bot,
            "recipient": Recipient.of_user(user),
            "pair": (user, {"name": "Alice"}),
        }

        [result] = notify(forms[form], "Hello")

        record = NotificationRecord.objects.get(pk=result.record_id)
        assert (record.user_id, record.endpoint and record.endpoint.label.partition(":")[0]) == {
            "email": (None, "address"),
            "label": (None, "on-call"),
            "endpoint": (None, "on-call"),
        }.get(form, (user.pk, None))

    def test_many_recipients_get_one_record_each_and_are_named_by_index(self, user: User) -> None:
        other = User.objects.create_user("bob")

        results = notify([user, other, "carol@example.com", user], "Hello", channels=["email"], key="k")

        assert [(result.recipient, result.reused) for result in results] == [(0, False), (1, False), (2, False)]

    def test_an_address_has_one_endpoint_whose_label_does_not_show_it(self) -> None:
        notify("bob@example.com", "One")
        notify(["bob@example.com", " bob@example.com "], "Two")

        [made] = UserNotificationChannel.objects.all()
        assert made.webhook_url.reveal() == "bob@example.com"
        assert "bob" not in made.label + str(made)
        assert NotificationRecord.objects.count() == 2

    def test_a_user_as_an_object_on_a_named_channel_costs_one_statement(self, user: User) -> None:
        with CaptureQueriesContext(connection) as queries:
            notify(user, "Hello", channels=["email"])

        assert [query["sql"].split()[0] for query in queries] == ["INSERT"]

    def test_unknown_recipients_are_named_by_index(self, user: User) -> None:
        found = problems([user, 987_654, object(), "nobody", [], True], "Hello")
        assert set(found) == {"recipients[2]", "recipients[4]", "recipients[5]"}, "what is no recipient is told first"

        found = problems([user, 987_654, "nobody", "not@an@address", Recipient.of_user(user, label="x")], "Hello")

        assert set(found) == {f"recipients[{index}]" for index in (1, 2, 3, 4)}
        assert "nobody" in found["recipients[2]"]

    def test_unknown_channels_and_empty_lists_are_refused(self, user: User) -> None:
        assert "no provider" in problems(user, "Hello", channels=["pigeon"])["channels"]
        assert problems(user, "Hello", channels=[]) == {"channels": "must not be empty"}
        assert "channels" in problems(user, "Hello", channels="email")
        assert problems([], "Hello") == {"recipients": "must not be empty"}


class TestKey:
    def test_the_same_key_sends_nothing_new_to_the_same_recipient(self, user: User) -> None:
        other = User.objects.create_user("bob")
        [first] = notify(user, "Hello", key="k", channels=["email"])
        NotificationRecord.objects.update(status="sent", next_attempt_at=None)

        again = notify([user, other], "Hello again", key="k", channels=["email"])

        assert [(result.reused, result.status) for result in again] == [(True, "sent"), (False, "pending")]
        assert again[0].record_id == first.record_id
        assert NotificationRecord.objects.get(pk=first.record_id).summary_text == "Hello"

    def test_a_key_that_is_missing_is_made(self, user: User) -> None:
        [first], [second] = notify(user, "Hello"), notify(user, "Hello")

        assert first.key != second.key
        assert not second.reused

    def test_a_long_key_stays_unique_for_each_recipient(self, user: User) -> None:
        key = "k" * 191

        [one], [other] = notify(user, "x", key=key, channels=["email"]), notify("b@example.com", "x", key=key)

        assert one.record_id != other.record_id
        assert {record.request_key for record in NotificationRecord.objects.all()} == {key}

    def test_an_event_with_the_key_of_a_message_is_a_conflict_and_no_duplicate(self, user: User) -> None:
        request_notification(payload(user_id=user.pk, dedupe_key=f"k|u:{user.pk}"))

        with pytest.raises(DedupeConflict):
            notify(user, "Hello", key="k", channels=["feishu"])

    def test_a_rolled_back_message_is_not_stored_and_nobody_is_nudged(self, user: User) -> None:
        purge_queue("deliver")
        with pytest.raises(RuntimeError), transaction.atomic():
            notify([user, "bob@example.com"], "Hello")
            raise RuntimeError

        assert not NotificationRecord.objects.exists()


class TestContent:
    def test_it_arrives_as_it_was_given(self, user: User, memory: MemoryProvider, clock: Clock, change: Change) -> None:
        change(FRONTEND_BASE_URL="https://shop.example")
        text = "Shipped: https://carrier.example/t/1\n" + "x" * 5000
        notify(
            user, text, title="Order 1", url="/orders/1", action="Track", channels=["feishu"],
            data={"order": 1}, key="k",
        )  # fmt: skip
        NotificationRecord.objects.update(next_attempt_at=clock())

        make_engine(memory, clock).deliver_due()

        [request] = memory.requests
        assert (request.message_text, request.title, request.key) == (text, "Order 1", "k")
        assert request.content is not None
        assert (request.content.action, request.content.data) == ("Track", {"order": 1})

    def test_a_webhook_receives_title_link_kind_and_data(self, user: User) -> None:
        body = StandardWebhookProvider().payload(
            sent_request(user, title="T", url="https://a.example/b", data={"n": 1})
        )

        assert body["data"]["message"] == {
            "title": "T",
            "summary": "Hello",
            "action_text": "Open",
            "action_url": "https://a.example/b",
        }
        assert (body["data"]["data"], body["data"]["user_id"]) == ({"n": 1}, user.pk)

    def test_a_mail_has_a_subject_a_link_html_a_reply_address_and_a_file(
        self, user: User, templates: Callable[..., None]
    ) -> None:
        templates("shipped", title="Order {{ n }}", text="Order {{ n }} & more", html="<b>{{ n }} & {{ name }}</b>")
        data = {"email": {"reply_to": ["shop@example.com"], "attachments": [{"name": "a.csv", "content": "YQ=="}]}}
        notify(user, kind="shipped", context={"n": 1, "name": "<x>"}, url="https://a.example", data=data,
               channels=["email"])  # fmt: skip

        tasks.deliver_due.run()

        [sent] = mail.outbox
        assert (sent.to, sent.subject, sent.reply_to) == (["alice@example.com"], "Order 1", ["shop@example.com"])
        assert sent.body == "Order 1 & more\n\nOpen: https://a.example\n"
        assert sent.alternatives[0].content == "<b>1 & &lt;x&gt;</b>"  # type: ignore[attr-defined]
        assert sent.attachments[0][:2] == ("a.csv", b"a")

    def test_a_mail_without_a_title_has_the_first_line_as_its_subject(self, user: User) -> None:
        notify("bob@example.com", "Two words\nand more")

        tasks.deliver_due.run()

        [sent] = mail.outbox
        assert (sent.to, sent.subject, sent.body) == (["bob@example.com"], "Two words", "Two words\nand more\n")

    def test_a_kind_is_rendered_in_the_language_of_each_recipient(
        self, user: User, templates: Callable[..., None], change: Change
    ) -> None:
        change(LANGUAGE_ATTRIBUTE="first_name")
        templates("hello", text="{% load i18n %}{% get_current_language as code %}{{ code }} {{ who }} {{ shop }}")
        User.objects.filter(pk=user.pk).update(first_name="zh-hans")
        other = User.objects.create_user("bob", first_name="xx")

        notify([(user.pk, {"who": "A"}), (other, {"who": "B"})], kind="hello", context={"shop": "S"},
               channels=["email"])  # fmt: skip

        texts = NotificationRecord.objects.order_by("pk").values_list("summary_text", flat=True)
        assert list(texts) == ["zh-hans A S", "en B S"]

    def test_a_template_that_fails_is_refused_with_its_line(self, user: User, templates: Callable[..., None]) -> None:
        templates("broken", text="one\n{% nonsense %}")
        templates("raising", text="a\nb\n{{ value|add:other|divisibleby:0 }}")
        templates("blank", text="  ")

        assert "line 2" in problems(user, kind="broken")["kind"]
        assert "line 3" in problems(user, kind="raising", context={"value": 1, "other": 2})["kind"]
        assert "blank" in problems(user, kind="blank")["kind"]
        assert "no template" in problems(user, kind="unknown")["kind"]

    @pytest.mark.parametrize(
        ("links", "url", "allowed"),
        [
            (("any",), "https://other.example/x", True),
            (("own",), "https://other.example/x", False),
            (("own",), "https://shop.example/x", True),
            (("own",), "/x", True),
            (("https://other.example",), "https://other.example/x", True),
            (("https://other.example",), "https://other.example.evil.example/x", False),
            (("https://other.example",), "https://other.example@evil.example/x", False),
            (("https://other.example",), "http://other.example/x", False),
            (("any",), "javascript:alert(1)", False),
            (("any",), "//other.example/x", False),
            (("any",), "/\\other.example", False),
        ],
    )
    def test_a_link_leads_only_where_links_allows(
        self, user: User, change: Change, links: tuple[str, ...], url: str, allowed: bool
    ) -> None:
        change(LINKS=links, FRONTEND_BASE_URL="https://shop.example")

        if allowed:
            notify(user, f"See {url}" if "://" in url else "Hello", url=url)
        else:
            assert "url" in problems(user, "Hello", url=url)

    def test_a_text_with_a_forbidden_link_is_refused_and_not_replaced(self, user: User, change: Change) -> None:
        change(LINKS=("own",), FRONTEND_BASE_URL="https://shop.example")

        assert "text" in problems(user, "See https://other.example/x")

    def test_what_is_no_message_is_refused_by_name(self, user: User) -> None:
        cases: dict[str, dict[str, Any]] = {
            "text": {"text": "  "},
            "title": {"text": "x", "title": "a\nb"},
            "context": {"text": "x", "context": {"a": object()}},
            "data": {"text": "x", "data": {"a": float("nan")}},
            "payload": {"text": "x", "data": {"a": "y" * 1_000_000}},
            "mentions": {"text": "x", "mentions": [Mention.open_id("<at>")]},
            "priority": {"text": "x", "priority": 9},
            "language": {"text": "x", "language": "tlh"},
            "deliver_at": {"text": "x", "deliver_at": datetime(2026, 1, 1)},  # noqa: DTZ001
            "kind": {"text": "x", "kind": "../etc"},
            "key": {"text": "x", "key": "a\0"},
            "expires_at": {"text": "x", "deliver_at": LATER, "expires_at": LATER},
        }
        for name, arguments in cases.items():
            assert name in problems(user, **arguments), name

    def test_data_that_a_provider_cannot_use_is_refused(self, user: User) -> None:
        wrong = {"email": {"attachments": [{"name": "../x", "content": "YQ=="}]}}
        assert "attachments" in problems(user, "x", data=wrong, channels=["email"])["data"]
        assert "colour" in problems(user, "x", data={"feishu": {"colour": "pink"}}, channels=["feishu_bot"])["data"]

    def test_mentions_are_refused_on_a_channel_that_has_none(self, user: User) -> None:
        found = problems(user, "x", mentions=[Mention.everyone()], channels=["email"])

        assert found == {"mentions": "the channel email cannot mention anybody"}


def sent_request(recipient: Any, text: str = "Hello", **arguments: Any) -> SendRequest:
    """Return the request that a provider receives for a message."""
    memory = MemoryProvider()
    notify(recipient, text, channels=["feishu"], **arguments)
    Engine(providers={"feishu": memory}).deliver_due()
    [request] = memory.requests
    return request


class TestFeishuBot:
    def posted(self, kind: str, user: User, text: str = "Hello", **arguments: Any) -> dict[str, Any]:
        request = sent_request(user, text, **arguments)
        provider = FeishuBotProvider(format=kind)
        exchange = provider.deliver(request, "https://open.feishu.cn/open-apis/bot/v2/hook/12345678", "")
        body: dict[str, Any] = json.loads(next(exchange).body)
        exchange.close()
        return body

    def test_a_card_has_json_2_0_colour_fields_mention_and_link(self, user: User, change: Change) -> None:
        change(PROVIDERS={"feishu": "tests.support.mentioning.MentioningMemoryProvider"})
        data = {"feishu": {"colour": "red", "fields": {"Host": "db-1"}}}

        body = self.posted("card", user, title="Down", url="https://a.example", data=data,
                           mentions=[Mention.open_id("ou_1")])  # fmt: skip

        card = body["card"]
        tags = [element["tag"] for element in card["body"]["elements"]]
        assert (card["schema"], card["header"]["template"], tags) == (
            "2.0",
            "red",
            ["div", "div", "markdown", "button"],
        )
        assert "<at id=ou_1></at>" in json.dumps(card)

    def test_a_post_is_in_the_language_of_its_reader(self, user: User) -> None:
        body = self.posted("post", user, title="T", language="en-us")

        assert list(body["content"]["post"]) == ["en_us"]

    def test_a_text_without_a_title_and_a_link_is_the_text(self, user: User) -> None:
        assert self.posted("text", user, "Line\nline")["content"]["text"] == "Line\nline"

    def test_no_text_mentions_anybody(self, user: User) -> None:
        tag = '<at user_id="all"></at>'

        for kind in ("text", "post", "card"):
            NotificationRecord.objects.all().delete()
            body = self.posted(kind, user, tag, title=tag, action=tag, url="https://a.example", key=kind)
            if kind == "text":
                assert "<at" not in body["content"]["text"]
            else:
                assert not [part for part in parts_of(body) if part.get("tag") in ("at", "markdown", "lark_md")]


def test_no_generated_text_mentions_anybody() -> None:
    pieces = ("<", "＜", "/", "at", "AT", " ", "\n", "\t", "user_id=", '"all"', ">", "a", "t", "&lt;", "\u200b", "词")
    choice = random.Random(15)  # noqa: S311  nothing is kept secret by it
    for _number in range(100_000):
        text = "".join(choice.choices(pieces, k=choice.randrange(1, 12)))
        parts = MessageParts(title=text, summary=text, action_text=text, action_url="https://a.example")

        posted = build_text(parts)["content"]["text"]

        assert not re.search(r"<\s*/?\s*at(?![a-z0-9_])", posted.lower()), text


def parts_of(value: Any) -> list[dict[str, Any]]:
    """Return all objects in a JSON value."""
    if isinstance(value, list):
        return [part for item in value for part in parts_of(item)]
    return [value, *(part for item in value.values() for part in parts_of(item))] if isinstance(value, dict) else []


class TestEndpoints:
    def test_records_of_one_user_go_to_the_endpoint_that_they_name(self, user: User) -> None:
        endpoint(user=user, webhook_url="https://www.feishu.cn/flow/api/trigger-webhook/default0")
        endpoint("team", user=user, webhook_url="https://www.feishu.cn/flow/api/trigger-webhook/team0000")
        provider = EndpointMemory()

        notify(user, "Both")
        notify(Recipient.of_user(user, label="team"), "Team", channels=["feishu"])
        Engine(providers={"feishu": provider}).deliver_due()

        assert sorted(provider.sent) == [("Both", "default0"), ("Both", "team0000"), ("Team", "team0000")]

    def test_a_paused_endpoint_holds_only_its_own_records_and_releases_them(
        self, user: User, clock: Clock, memory: MemoryProvider
    ) -> None:
        paused = endpoint("on-call", paused_at=clock())
        endpoint("other")
        notify(["on-call", "other"], "Hello")
        NotificationRecord.objects.update(next_attempt_at=clock())
        make_engine(memory, clock).deliver_due()
        assert NotificationRecord.objects.by_status() == {"pending": 1, "sent": 1}

        UserNotificationChannel.objects.filter(pk=paused.pk).update(paused_at=None)
        for _sweep in range(2):  # nobody resumed it: one finds that it is healthy, and the next releases the record
            clock.forward(minutes=5)
            release_and_probe_channels(service_options(), clock)
        make_engine(memory, clock).deliver_due()

        assert NotificationRecord.objects.by_status() == {"sent": 2}

    def test_each_held_endpoint_has_its_own_link_and_its_own_count(
        self, admin_client: Client, memory: MemoryProvider
    ) -> None:
        first, second = (endpoint(label, paused_at=LONG_AGO) for label in ("first", "second"))
        notify(["first", "second"], "Hello", key="a")
        notify("second", "Hello", key="b")
        Engine(providers={"feishu": memory}).deliver_due()

        lists = [admin_client.get(f"{LIST}?now=held&endpoint_id={row.pk}&channel=feishu") for row in (first, second)]
        page = admin_client.get("/admin/notifications/usernotificationchannel/").text

        assert [len(shown.context["cl"].result_list) for shown in lists] == [1, 2]
        assert f"endpoint_id={second.pk}" in page
        assert {(item.endpoint_id, item.waiting) for item in Indicators().endpoints} == {(first.pk, 1), (second.pk, 2)}

    def test_an_endpoint_that_was_deleted_makes_its_record_skipped(self, memory: MemoryProvider, clock: Clock) -> None:
        bot = endpoint("on-call")
        notify(bot, "Hello")
        bot.delete()
        NotificationRecord.objects.update(next_attempt_at=clock())
        provider = EndpointMemory()

        make_engine(provider, clock).deliver_due()

        assert provider.sent == [("Hello", None)]


class EndpointMemory(MemoryProvider):
    """Remembers the end of the address that each message was sent to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str | None]] = []

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        self.sent.append((request.message_text, endpoint.webhook_url.reveal()[-8:] if endpoint else None))
        return super().send(request, endpoint)


class TestLife:
    def test_replace_changes_what_waits_and_keeps_what_it_was(self, user: User) -> None:
        notify(user, "At 10", key="k", title="Reminder", deliver_at=LATER)

        [result] = notify(user, "At 11", key="k", title="Moved", deliver_at=LATER + timedelta(hours=1), replace=True)

        record = NotificationRecord.objects.get()
        assert (result.reused, result.changed, result.status) == (True, True, "pending")
        assert (record.summary_text, record.title) == ("At 11", "Moved")
        assert record.next_attempt_at == LATER + timedelta(hours=1)
        [change] = (record.content or {})["changes"]
        assert (change["what"], change["was"]["text"]) == ("replaced", "At 10")

    @pytest.mark.parametrize("code", ["cancelled", "expired"])
    def test_replace_begins_a_new_round_of_what_was_cancelled(self, user: User, code: str) -> None:
        [first] = notify(user, "Hello", key="k")
        assert cancel("k") == 1
        NotificationRecord.objects.update(last_error_code=code)
        assert notify(user, "Hello", key="k")[0].status == "skipped"

        [again] = notify(user, "Hello", key="k", replace=True)

        record = NotificationRecord.objects.get()
        assert (again.record_id, again.status, record.round) == (first.record_id, "pending", 1)

    def test_replace_begins_a_new_round_of_what_is_dead_but_not_of_what_was_sent(self, user: User) -> None:
        notify(user, "Hello", key="k")
        for status, changed in ((Status.DEAD, True), (Status.SENT, False)):
            NotificationRecord.objects.update(status=status, next_attempt_at=None, attempt_count=5)
            assert notify(user, "Again", key="k", replace=True)[0].changed == changed

    def test_reschedule_moves_what_waits(self, user: User) -> None:
        notify([user, "bob@example.com"], "Hello", key="k", deliver_at=LATER)
        NotificationRecord.objects.filter(user=user).update(status="sent", next_attempt_at=None)

        assert reschedule("k", LATER + timedelta(days=1)) == 1
        assert reschedule("unknown", LATER) == 0
        with pytest.raises(InvalidNotification):
            reschedule("k", LATER + timedelta(days=2), expires_at=LATER)

        moved = NotificationRecord.objects.get(user=None)
        assert moved.next_attempt_at == LATER + timedelta(days=1)
        assert (moved.content or {})["changes"][0]["what"] == "rescheduled"

    def test_status_and_cancel_are_by_key_for_all_recipients(self, user: User) -> None:
        notify([user, "bob@example.com"], "Hello", key="k")
        notify(user, "Other", key="other")

        assert cancel("k") == 2
        assert [(item.status, item.error_code) for item in status_of("k")] == [("skipped", "cancelled")] * 2
        assert [item.status for item in status_of("other")] == ["pending"]
        assert status_of("") == []
        assert cancel("") == 0


class TestTask:
    def test_the_event_has_the_arguments_as_json(self, user: User, change: Change) -> None:
        endpoint("on-call", "feishu_bot")
        tasks.handle_requested.run({
            "key": "k", "recipients": [user.pk, {"label": "on-call"}, {"address": "bob@example.com"}],
            "text": "Hello", "deliver_at": "2099-01-01T00:00:00Z", "event_version": "1",
        })  # fmt: skip

        records = NotificationRecord.objects.order_by("pk")
        assert [record.next_attempt_at for record in records] == [LATER] * 3
        assert not RejectedRequest.objects.exists()

    def test_an_event_that_is_delivered_twice_is_stored_once(self, user: User) -> None:
        event = {"key": "k", "recipients": user.pk, "text": "Hello"}

        tasks.handle_requested.run(event)
        tasks.handle_requested.run(event)

        assert NotificationRecord.objects.count() == 1

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"key": None}, "key"),
            ({"recipients": None}, "recipients"),
            ({"recipients": [{"user": 1, "nick": "x"}]}, "recipients[0]"),
            ({"recipients": [[1]]}, "recipients[0]"),
            ({"mentions": ["<at>"]}, "mentions"),
            ({"deliver_at": "tomorrow"}, "deliver_at"),
            ({"replace": "yes"}, "replace"),
            ({"channels": "email"}, "channels"),
            ({"colour": "red"}, "colour"),
        ],
    )
    def test_a_wrong_event_is_stored_as_rejected_with_its_reason(
        self, user: User, wrong: dict[str, Any], field: str
    ) -> None:
        tasks.handle_requested.run({"key": "k", "recipients": user.pk, "text": "x", **wrong})

        [rejected] = RejectedRequest.objects.all()
        assert field in {error["field"] for error in rejected.errors}
        assert not NotificationRecord.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_async_code_can_notify() -> None:
    user = User.objects.create_user("alice")

    [result] = async_to_sync(anotify)(user, "Hello")

    assert NotificationRecord.objects.get().pk == result.record_id


class TestAdmin:
    def test_the_page_of_a_record_shows_title_link_recipient_kind_and_key(self, admin_client: Client) -> None:
        bot = endpoint("on-call", "feishu_bot")
        [result] = notify(bot, "Body text", title="Disk full", key="disk-1", url="https://a.example/x", order_key="o-1")

        page = admin_client.get(f"{LIST}{result.record_id}/change/").text
        found = admin_client.get(LIST, {"request": "disk-1"}).context["cl"].result_list
        searched = admin_client.get(LIST, {"q": "disk-1"}).context["cl"].result_list

        for text in ("Body text", "Disk full", "disk-1", "https://a.example/x", "on-call", "o-1"):
            assert text in page, text
        assert [row.pk for row in found] == [row.pk for row in searched] == [result.record_id]

    def test_an_endpoint_without_a_user_can_be_entered_and_tested(self, admin_client: Client) -> None:
        page = "/admin/notifications/usernotificationchannel/"
        fields = {"user": "", "channel": "feishu_bot", "enabled": "on", "auth_type": "none",
                  "new_webhook_url": "https://open.feishu.cn/open-apis/bot/v2/hook/0123456789"}  # fmt: skip

        refused = admin_client.post(f"{page}add/", fields | {"label": ""})
        admin_client.post(f"{page}add/", fields | {"label": "on-call"})

        made = UserNotificationChannel.objects.get()
        assert "label" in refused.context["adminform"].form.errors
        assert (made.user_id, made.label) == (None, "on-call")
        assert "on-call" in admin_client.get(page).text
        assert admin_client.get(f"{page}{made.pk}/change/").status_code == 200

    def test_two_endpoints_of_one_user_need_two_labels(self, admin_client: Client, user: User) -> None:
        endpoint("a", user=user)
        page = "/admin/notifications/usernotificationchannel/add/"
        fields = {"user": user.pk, "channel": "feishu", "enabled": "", "auth_type": "none"}

        refused = admin_client.post(page, fields | {"label": "a"})
        admin_client.post(page, fields | {"label": "b"})

        assert refused.status_code == 200
        assert refused.context["adminform"].form.errors
        assert UserNotificationChannel.objects.filter(user=user).count() == 2


class TestKindsPage:
    PAGE = "/admin/notifications/usernotificationchannel/kinds/"

    def test_the_page_renders_sample_values_and_sends_a_test(
        self, admin_client: Client, templates: Callable[..., None], tmp_path: Path
    ) -> None:
        templates("shipped", title="Order {{ n }}", text="Sent {{ n }} <b>", html="<i>{{ n }}</i>")
        (tmp_path / "notifications" / "shipped" / "sample.json").write_text('{"n": 1042}')
        bot = endpoint("warehouse", "feishu_bot")
        fields = {"kind": "shipped", "language": "en", "context": '{"n": 7}', "endpoint": bot.pk}

        sample = admin_client.get(self.PAGE, {"kind": "shipped"})
        preview = admin_client.post(self.PAGE, fields)
        assert not NotificationRecord.objects.exists()
        sent = admin_client.post(self.PAGE, fields | {"_send": "1"}, follow=True)

        assert "1042" in sample.text
        assert preview.context["texts"] == ("Order 7", "Sent 7 <b>", "<i>7</i>")
        assert "Sent 7 &lt;b&gt;" in preview.text
        record = NotificationRecord.objects.get()
        assert (record.endpoint_id, record.summary_text) == (bot.pk, "Sent 7 <b>")
        assert f"/notificationrecord/{record.pk}/change/" in sent.redirect_chain[0][0]

    def test_what_cannot_be_rendered_or_sent_is_told(
        self, admin_client: Client, templates: Callable[..., None]
    ) -> None:
        templates("broken", text="{% nonsense %}")
        templates("good", text="x")
        good = {"kind": "good", "language": "en", "context": "{}"}

        assert "line 1" in admin_client.post(self.PAGE, good | {"kind": "broken"}).text
        for wrong in (
            {"context": "{"},
            {"context": "[]"},
            {"_send": "1"},
            {"endpoint": "99", "_send": "1"},
            {"kind": "x"},
        ):
            assert admin_client.post(self.PAGE, good | wrong).context["form"].errors, wrong
        assert admin_client.get(self.PAGE, {"kind": "../x"}).status_code == 200
        assert not NotificationRecord.objects.exists()

    def test_who_may_only_view_endpoints_sends_nothing(self, client: Client, templates: Callable[..., None]) -> None:
        templates("good", text="x")
        viewer = User.objects.create_user("viewer", is_staff=True)
        client.force_login(viewer)
        assert client.get(self.PAGE).status_code == 403
        viewer.user_permissions.set(Permission.objects.filter(codename="view_usernotificationchannel"))

        page = client.get(self.PAGE)
        refused = client.post(self.PAGE, {"kind": "good", "language": "en", "_send": "1"})

        assert "_send" not in page.text
        assert refused.status_code == 403


def test_no_log_line_has_the_address_of_a_recipient(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        notify("very-secret-address@example.com", "Hello")
        tasks.deliver_due.run()

    assert "very-secret-address" not in caplog.text
    assert get_user_model().objects.count() == 0


def test_a_test_can_assert_what_was_asked_for(user: User) -> None:
    bot, other = endpoint("on-call", "feishu_bot"), endpoint("other", "feishu_bot")
    notify([user, bot], "Hello", title="T", key="k", channels=["feishu_bot"])

    assert_notified(user, request_key="k", title="T")
    assert_notified(bot, summary_text="Hello")
    assert_not_notified(other)
    with pytest.raises(AssertionError, match="on-call"):
        assert_notified(bot, title="Other")
