"""Generated payloads: nothing crashes, every refusal names its field, nothing is accepted that breaks a rule.

`broken_fields` states the rules a second time, from docs/events.md and the widths of the columns, so that an error in
one of them is found.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import models
from django.test import Client
from hypothesis import HealthCheck, Phase, Verbosity, given, settings, strategies as st

from notifications import tasks
from notifications.ingest.payload import NotificationRequest, parse_payload
from notifications.ingest.validation import InvalidNotification
from notifications.models import NotificationRecord, RejectedRequest
from notifications.providers import get_provider
from notifications.providers.feishu.flow import FeishuFlowProvider
from notifications.providers.memory import MemoryProvider
from tests.support.depth import PART
from tests.support.payloads import payload

GOAL = 100_000 // PART
NESTED_DEPTHS = (100, 400, 700, 850, 920, 960, 980, 100_000)
"""Levels around the depth at which Python's JSON gives up, and far beyond."""
REPEATABLE = settings(
    database=None,
    derandomize=True,
    deadline=None,
    phases=(Phase.generate,),  # the same run finds the same failure again; shrinking thousands of payloads takes long
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,
)
WIDTHS = {
    field.name: field.max_length or 10_000
    for field in NotificationRecord._meta.get_fields()
    if isinstance(field, (models.CharField, models.TextField))
    and field.name not in ("channel", "status", "last_error", "last_error_code", "provider_message_id", "hold_reason")
    and field.name not in ("request_key", "order_key", "kind", "title")  # of `notify` only
}
TEXTS = ("summary_text", "fallback_text")
INTEGERS = ("target_id", "notification_id")
FIELDS = (*WIDTHS, *INTEGERS, "user_id", "requested_at", "event_version")
INT64 = range(-(2**63), 2**63)
KEYS = range(1, 2**31)
"""Possible keys of the user table."""


def trimmed(text: str) -> str:
    space = "".join({char for char in text if char.isspace()} - set("\x1c\x1d\x1e\x1f"))
    return text.strip(space) if space else text


def is_control(char: str, name: str) -> bool:
    """Tell whether the field refuses this control character."""
    if unicodedata.category(char) != "Cc":
        return False
    if name == "target_url":
        return True
    return char not in "\x1c\x1d\x1e\x1f" and not (name in TEXTS and char.isspace())


def is_text(name: str, value: object) -> bool:
    if value is None:
        return name not in ("preview_id", "dedupe_key", "target_url")
    if not isinstance(value, str):
        return False
    text = trimmed(value)
    if len(text) > WIDTHS[name] or any("\ud800" <= char <= "\udfff" or is_control(char, name) for char in text):
        return False
    if name == "target_url":
        return text[:1] == "/" and text[:2] != "//" and "://" not in text and "\\" not in text
    return bool(text) or name not in ("preview_id", "dedupe_key")


def is_moment(value: object) -> bool:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return False
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        return False
    since = moment.replace(tzinfo=UTC) - datetime(1, 1, 1, tzinfo=UTC)
    return since != moment.utcoffset() or (isinstance(value, str) and "." in value and value[-2] in "123456789")


def broken_fields(value: Any) -> set[str]:
    """Return the names of the fields that break a rule, as errors name them."""
    if not isinstance(value, dict):
        return {"payload"}
    if len(json.dumps(value, ensure_ascii=False, skipkeys=True).encode("utf-8", "surrogatepass")) > 128 * 1024:
        return {"payload"}
    names = {name for name in WIDTHS if not is_text(name, value.get(name))}
    for name in INTEGERS:
        if (number := value.get(name)) is not None and (type(number) is not int or number not in INT64):
            names.add(name)
    if type(value.get("user_id")) is not int or value["user_id"] not in KEYS:
        names.add("user_id")
    if not is_moment(value.get("requested_at")):
        names.add("requested_at")
    if value.get("event_version", "1") != "1":
        names.add("event_version")
    unknown = [name for name in value if name not in FIELDS]
    names |= {"".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in str(n)) for n in unknown[:20]}
    return {name[:64] or '""' for name in names} | ({"payload"} if unknown[20:] else set())


NASTY = [
    *(
        "",
        " ",
        "\u3000",
        "\x00",
        "a\x00b",
        "\x1c",
        "\x1f",
        "\x7f",
        "\x85",
        "a\x85b",
        "\x9f",
        "\n",
        "a\nb",
        "\ufeff",
        "\u200b",
    ),
    *(
        "\ud800",
        "a\udfffb",
        "\ufffe",
        "\U0010ffff",
        "👩\u200d🚀",
        "\u202egnp.exe",
        "e\u0301" * 9,
        "ﷺ" * 40,
        "\u0600" * 70,
    ),
    *(
        "/",
        "//",
        "/a",
        "//evil.example",
        "/a://b",
        "/\\evil",
        "／a",
        "/a b",
        "/..//..",
        "/%2f%2fevil",
        "/a\tb",
        "/字" * 90,
    ),
    *("0", "1", "-1", "1.0", "NaN", "null", "true", "[]", "{}", "'; DROP TABLE notification_records; --", "%s%(x)s{0}"),
    *("https://evil.example", "ｗｗｗ．evil．example", "<script>alert(1)</script>", "\\u0000", "x" * 64, "x" * 65),
    *("字" * 191, "字" * 192, "x" * 1024, "/" + "x" * 1023, "/" + "x" * 1024, "x" * 10_000, "x" * 10_001, " x" * 5000),
    *(
        "2026-05-01T08:00:00",
        "2026-02-30T08:00:00Z",
        "2026-05-01",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00.000000001Z",
    ),
    *("0001-01-01T08:00:00+08:00", "9999-12-31T23:59:59-23:59", "2026-05-01T24:00:00Z", "2026-05-01T08:00:60Z"),
]
NUMBERS = [
    *(0, -0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400, True, False),
    *(0.0, -0.0, 1.0, 42.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")),
]
MOMENTS = st.datetimes(
    timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=8)), timezone(-timedelta(hours=12))])
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=300),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zs", "Zl", "Zp"]), max_size=12),
    st.text(max_size=20).map("/".__add__),
    st.sampled_from(NASTY),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(),
    MOMENTS.map(datetime.isoformat),
    st.none(),
    st.lists(st.integers() | st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5), max_size=3),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=6),
    max_leaves=12,
)
GOOD = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from([1, 42, 2**31 - 1]),
        "preview_id": st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=30),
        "dedupe_key": st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=30),
        "target_url": st.sampled_from(["/", "/assistant/c-1", "/字/a?b=c#d"]),
        "requested_at": MOMENTS.filter(lambda moment: bool(moment.tzinfo)).map(datetime.isoformat),
    },
    optional={
        "summary_text": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=400),
        "fallback_text": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=400),
        "target_id": st.integers(-(2**63), 2**63 - 1),
        "trace_id": st.just("trace-1"),
    },
)
MUTATION = st.tuples(st.sampled_from(FIELDS) | st.text(max_size=70), VALUES)
NEAR = st.builds(lambda good, changes: good | dict(changes), GOOD, st.lists(MUTATION, min_size=1, max_size=3))


def parsed(value: object) -> tuple[NotificationRequest | None, list[tuple[str, Any]]]:
    """Return the request, or what is wrong with it; only InvalidNotification may be raised."""
    try:
        return parse_payload(value, max_user_id=KEYS[-1]), []
    except InvalidNotification as error:
        return None, error.errors


class PayloadChecker:
    """Counts the generated payloads, and checks each result against the rules."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.accepted = self.refused = 0

    def check(self, value: Any) -> None:
        """Parse one payload and compare the result with the rules."""
        self.seen.add(hash(repr(value)))
        wrong = broken_fields(value)
        request, errors = parsed(value)
        assert {name for name, _reason in errors} == wrong, ascii(value)
        assert all(name and str(reason) for name, reason in errors), ascii(value)
        if request is None:
            self.refused += 1
            assert wrong, ascii(value)
            return
        self.accepted += 1
        for name in WIDTHS:
            assert getattr(request, name) == trimmed(value.get(name) or "")
        assert (request.user_id, request.target_id) == (value["user_id"], value.get("target_id") or 0)


@pytest.mark.no_cover  # counting lines would double its time
def test_a_hundred_thousand_payloads_are_checked_by_the_rules() -> None:
    checker = PayloadChecker()

    @settings(REPEATABLE, max_examples=4_700 // PART)
    @given(VALUES, st.integers(0, 2**31 - 1))
    def any_value_in_every_field(value: Any, number: int) -> None:
        for name in (*FIELDS, str(number)):
            checker.check(payload(target_id=number) | {name: value})

    @settings(REPEATABLE, max_examples=4_700 // PART)
    @given(NEAR)
    def one_to_three_fields_changed(value: Any) -> None:
        checker.check(value)
        for name in value:  # and without each of them
            checker.check({key: value[key] for key in value if key != name})

    @settings(REPEATABLE, max_examples=2_500 // PART)
    @given(JSON)
    def any_json(value: Any) -> None:
        checker.check(value)
        checker.check({"payload": value})

    @settings(REPEATABLE, max_examples=1_500 // PART)
    @given(st.dictionaries(st.none() | st.integers() | st.floats() | st.text(max_size=9), st.none(), max_size=40))
    def keys_of_any_kind(value: dict[Any, Any]) -> None:
        checker.check(value)
        checker.check(payload() | value)

    @settings(REPEATABLE, max_examples=100)
    @given(st.sampled_from(FIELDS), st.integers(43_000, 132_000), st.sampled_from("xй字😀\ud800"))
    def as_large_as_may_be(name: str, length: int, char: str) -> None:
        checker.check(payload() | {name: char * length})

    any_value_in_every_field()
    one_to_three_fields_changed()
    any_json()
    keys_of_any_kind()
    as_large_as_may_be()

    assert len(checker.seen) >= GOAL
    assert min(checker.accepted, checker.refused) >= GOAL / 10, "one kind alone proves little"


@pytest.fixture
def provider(change: Callable[..., None]) -> MemoryProvider:
    """What every message goes to in this test."""
    change(PROVIDERS={"feishu": "notifications.providers.memory.MemoryProvider"})
    configured = get_provider("feishu")
    assert isinstance(configured, MemoryProvider)
    return configured


@pytest.mark.django_db
class TestThroughTheTask:
    @pytest.mark.no_cover
    def test_each_payload_is_stored_and_sent_or_rejected_with_its_reasons(
        self, provider: MemoryProvider, admin_client: Client
    ) -> None:
        owners: dict[str, int] = {}
        kept: list[set[str]] = []

        @settings(REPEATABLE, max_examples=2_000 // PART)
        @given(st.one_of(GOOD, NEAR, NEAR, JSON), st.text("ab", max_size=1))
        def handle(value: Any, end: str) -> None:
            if isinstance(value, dict) and isinstance(value.get("dedupe_key"), str):
                value = value | {"dedupe_key": value["dedupe_key"][:1] + end}  # few keys, so that some are taken
            arrived = json.loads(json.dumps(value))
            answer = tasks.handle_feishu_requested.run(arrived)
            if wrong := broken_fields(arrived):
                kept.append(wrong)
                assert answer is None
                return
            key = trimmed(arrived["dedupe_key"])
            if owners.setdefault(key, arrived["user_id"]) != arrived["user_id"]:
                kept.append({"dedupe_key"})
                assert answer is None
                return
            assert answer is not None
            assert answer["status"] == "pending"
            self.check_stored(NotificationRecord.objects.get(pk=answer["record_id"]), arrived, reused=answer["reused"])

        handle()

        tasks.deliver_due.run()
        assert len(owners) == NotificationRecord.objects.filter(status="sent").count() == len(provider.requests)
        assert len(owners) > 100 / PART
        rejected = RejectedRequest.objects.order_by("pk").values_list("errors", flat=True)
        assert [{error["field"] for error in errors} for errors in rejected] == kept
        assert len(kept) > 500 / PART
        self.check_pages(admin_client)
        for request in provider.requests:
            assert request.message_text.strip()
            assert "://" not in request.message_text
            json.dumps(FeishuFlowProvider().payload(request), ensure_ascii=False).encode()

    def check_stored(self, record: NotificationRecord, value: dict[str, Any], *, reused: bool) -> None:
        if reused:  # the first request's text stays
            assert record.user_id == value["user_id"]
            return
        for name in set(WIDTHS) - set(TEXTS):
            assert getattr(record, name) == trimmed(value.get(name) or "")
        assert (record.user_id, record.target_id) == (value["user_id"], value.get("target_id") or 0)
        assert len(record.summary_text) <= 180
        assert record.fallback_text
        assert record.fallback_used != bool(record.summary_text)

    def check_pages(self, client: Client) -> None:
        """Open the page of every tenth row, and the lists."""
        for model in (NotificationRecord, RejectedRequest):
            url = f"/admin/notifications/{model._meta.model_name}/"
            pages = [url, *(f"{url}{pk}/change/" for pk in model._default_manager.values_list("pk", flat=True)[::10])]
            assert [page for page in pages if client.get(page).status_code != 200] == []

    def test_a_payload_nested_too_deeply_is_kept_as_rejected(self, provider: MemoryProvider) -> None:
        for depth, name in itertools.product(NESTED_DEPTHS, ("unknown", "summary_text")):
            nested: Any = 1
            for _ in range(depth):
                nested = [nested]

            assert tasks.handle_feishu_requested.run(payload() | {name: nested}) is None

            [error] = RejectedRequest.objects.latest("pk").errors
            assert error["field"] in ("payload", name), (depth, name)
        assert RejectedRequest.objects.count() == 2 * len(NESTED_DEPTHS)
        assert provider.requests == []

    def test_of_unknown_fields_the_first_20_are_named(self, provider: MemoryProvider) -> None:
        tasks.handle_feishu_requested.run(payload() | {f"unknown-{number}": 0 for number in range(5_000)})

        [error, *named] = RejectedRequest.objects.get().errors
        assert error == {"field": "payload", "reason": "has more unknown fields than are named here"}
        assert [item["field"] for item in named] == [f"unknown-{number}" for number in range(20)]
