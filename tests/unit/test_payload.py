"""The payload of a request: every refusal by field and reason, and what is accepted."""

from __future__ import annotations

import itertools
import re
import types
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from notifications.ingest.payload import IDENTIFIER_LENGTHS, TEXT_LENGTHS, NotificationRequest, parse_payload
from notifications.ingest.validation import MAX_INT64, DedupeConflict, InvalidNotification, parse_time
from tests.support.payloads import payload

STRINGS = sorted({*IDENTIFIER_LENGTHS, *TEXT_LENGTHS})
ACCEPTED = st.fixed_dictionaries(
    {
        "user_id": st.integers(1, 2**31 - 1),
        "preview_id": st.text(min_size=1, max_size=200),
        "dedupe_key": st.text(min_size=1, max_size=200),
        "target_url": st.text(max_size=40).map("/".__add__),
        "requested_at": st.just("2026-05-01T08:00:00Z"),
    },
    optional={name: st.text(max_size=80) for name in ("trigger_id", "summary_text", "fallback_text", "trace_id")},
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\x00", "\ud800", "1", "/a"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NEAR = st.dictionaries(st.sampled_from([*payload(), "event_version", "notification_id", "priority", "\x00"]), JSON)
"""Objects whose fields have known names and anything for a value."""


def refusals(value: object, *, max_user_id: int | None = MAX_INT64) -> list[tuple[str, str]]:
    """Return what is refused, or nothing."""
    try:
        parse_payload(value, max_user_id=max_user_id)
    except InvalidNotification as error:
        return [(name, str(reason)) for name, reason in error.errors]
    return []


class TestAccepts:
    def test_a_full_payload_is_accepted(self) -> None:
        request = parse_payload(payload(event_version="1", notification_id=0))

        assert request == NotificationRequest(
            **{name: value for name, value in payload().items() if name != "requested_at"}
        )

    def test_only_the_required_fields(self) -> None:
        names = ("user_id", "preview_id", "dedupe_key", "target_url", "requested_at")

        request = parse_payload({name: payload()[name] for name in names})

        assert (request.trigger_id, request.target_id, request.summary_text, request.channel) == ("", 0, "", "feishu")

    def test_null_counts_as_missing(self) -> None:
        gone: dict[str, Any] = dict.fromkeys(("trigger_id", "summary_text", "trace_id", "target_id", "notification_id"))

        assert parse_payload(payload(**gone)).trigger_id == ""

    def test_white_space_around_a_string_is_trimmed(self) -> None:
        for name in STRINGS:
            assert getattr(parse_payload(payload(**{name: "\u3000/x \n"})), name) == "/x", name

    def test_a_string_may_be_as_long_as_its_limit_after_trimming(self) -> None:
        for name in STRINGS:
            longest = "/" + "字" * ((IDENTIFIER_LENGTHS | TEXT_LENGTHS)[name] - 1)

            assert getattr(parse_payload(payload(**{name: f"  {longest}  "})), name) == longest, name

    def test_a_time_with_its_zone_is_accepted(self) -> None:
        values = ["2026-05-01T08:00:00Z", "2026-05-01T16:00:00.123456789+08:00", "1970-01-01T00:00Z"]
        values += ["2026-05-01t08:00:00z", "2026-05-01 08:00:00Z"]  # RFC 3339, section 5.6
        values += ["2016-12-31T23:59:60Z", "2017-01-01T07:59:60.5+08:00", "1990-12-31T15:59:60-08:00"]
        for value in values:
            assert not refusals(payload(requested_at=value)), value

    def test_a_second_60_counts_only_at_the_end_of_a_month_in_utc(self) -> None:
        assert parse_time("2016-12-31T23:59:60Z") == datetime(2017, 1, 1, tzinfo=UTC)
        for value in (
            "2016-12-30T23:59:60Z",
            "2016-12-31T23:58:60Z",
            "2016-12-31T23:59:60+08:00",
            "2016-12-31T23:59:61Z",
        ):
            assert refusals(payload(requested_at=value)), value

    def test_a_datetime_is_accepted(self) -> None:
        assert not refusals(payload(requested_at=datetime(2026, 5, 1, tzinfo=UTC)))

    def test_any_mapping_is_accepted(self) -> None:
        assert not refusals(types.MappingProxyType(payload()))

    def test_emoji_and_noncharacters_are_kept(self) -> None:
        assert (
            parse_payload(payload(dedupe_key="👨\u200d👩\ufffe\U0010ffff")).dedupe_key == "👨\u200d👩\ufffe\U0010ffff"
        )


REFUSED: tuple[tuple[str, object, str], ...] = (
    ("user_id", None, "is required"),
    ("user_id", 0, "must be positive"),
    ("user_id", -1, "must be positive"),
    ("user_id", MAX_INT64 + 1, "is too large"),
    ("user_id", True, "must be a whole number"),
    ("user_id", 42.0, "must be a whole number"),
    ("user_id", "42", "must be a whole number"),
    ("user_id", [42], "must be a whole number"),
    ("target_id", True, "must be a whole number"),
    ("target_id", "9", "must be a whole number"),
    ("target_id", 9.5, "must be a whole number"),
    ("target_id", MAX_INT64 + 1, "is too large"),
    ("priority", -1, "must be from 0 to 3"),
    ("priority", 4, "must be from 0 to 3"),
    ("priority", True, "must be a whole number"),
    ("priority", "2", "must be a whole number"),
    ("priority", MAX_INT64 + 1, "is too large"),
    ("target_id", -MAX_INT64 - 2, "is too large"),
    ("notification_id", "5", "must be a whole number"),
    ("notification_id", False, "must be a whole number"),
    ("preview_id", None, "must not be blank"),
    ("preview_id", "\u3000", "must not be blank"),
    ("dedupe_key", "", "must not be blank"),
    ("target_url", " ", "must not be blank"),
    ("target_url", "assistant/1", "must be a path of this site, starting with one /"),
    ("target_url", "https://evil.example", "must be a path of this site, starting with one /"),
    ("target_url", "／assistant/1", "must be a path of this site, starting with one /"),
    ("target_url", "//evil.example", "must not lead to another site"),
    ("target_url", "/a?next=https://evil.example", "must not lead to another site"),
    ("target_url", "/\\evil.example", "must not lead to another site"),
    ("target_url", "/a\nb", "must not hold control characters"),
    ("target_url", "/a\x1cb", "must not hold control characters"),
    ("dedupe_key", "a\x00b", "must not hold control characters"),
    ("dedupe_key", "a\nb", "must not hold control characters"),
    ("trace_id", "a\x7fb", "must not hold control characters"),
    ("trigger_id", "a\x85b", "must not hold control characters"),
    ("summary_text", "a\x00b", "must not hold control characters"),
    ("fallback_text", "a\x1bb", "must not hold control characters"),
    ("preview_id", "a\ud800", "is not valid Unicode"),
    ("summary_text", "\udfff", "is not valid Unicode"),
    ("requested_at", None, "is required"),
    ("requested_at", "", "must be an RFC 3339 time, such as 2026-05-01T08:00:00Z"),
    ("requested_at", "yesterday", "must be an RFC 3339 time, such as 2026-05-01T08:00:00Z"),
    ("requested_at", "2026-02-30T08:00:00Z", "must be an RFC 3339 time, such as 2026-05-01T08:00:00Z"),
    ("requested_at", 1_777_622_400, "must be an RFC 3339 time, such as 2026-05-01T08:00:00Z"),
    ("requested_at", True, "must be an RFC 3339 time, such as 2026-05-01T08:00:00Z"),
    ("requested_at", "2026-05-01T08:00:00", "must have a time zone"),
    ("requested_at", "2026-05-01", "must have a time zone"),
    ("requested_at", datetime(2026, 5, 1), "must have a time zone"),  # noqa: DTZ001
    ("requested_at", "0001-01-01T00:00:00Z", "must not be the zero time"),
    ("requested_at", "0001-01-01T08:00:00+08:00", "must not be the zero time"),
    (
        "requested_at",
        datetime(1, 1, 1, 8, tzinfo=timezone(timedelta(hours=8))),
        "must not be the zero time",
    ),
    ("event_version", "2", "is not supported; known: 1"),
    ("event_version", 1, "is not supported; known: 1"),
    ("event_version", None, "is not supported; known: 1"),
    ("channel", "email", "is not a known field"),
    ("用户", 1, "is not a known field"),
)


class TestRefuses:
    def test_a_payload_that_is_no_object_is_refused(self) -> None:
        for value in (None, [], "text", 7, b"{}", [("user_id", 1)]):
            assert refusals(value) == [("payload", "must be an object")], value

    def test_each_rule_refuses_by_field_and_reason(self) -> None:
        for name, value, reason in REFUSED:
            assert refusals(payload(**{name: value})) == [(name, reason)], (name, value)

    def test_a_value_that_is_no_string_is_refused(self) -> None:
        for name, value in itertools.product(STRINGS, (7, True, 1.5, ["a"], {"a": 1}, b"a")):
            assert refusals(payload(**{name: value})) == [(name, "must be a string")], (name, value)

    def test_a_string_longer_than_its_column_is_refused(self) -> None:
        for name, limit in (IDENTIFIER_LENGTHS | TEXT_LENGTHS).items():
            too_long = payload(**{name: "/" + "字" * limit})

            assert refusals(too_long) == [(name, f"is longer than {limit} characters")], name

    def test_a_user_id_beyond_the_tables_key_is_refused(self) -> None:
        assert refusals(payload(user_id=43), max_user_id=42) == [("user_id", "is too large")]
        assert not refusals(payload(user_id=42), max_user_id=42)

    def test_every_user_id_is_refused_where_users_have_no_integer_keys(self) -> None:
        reason = "this project's users have no integer keys; use notify()"
        for key in (42, "42", "0190163d-8694-739b-aea5-966c26f8ad91", None):
            assert refusals(payload(user_id=key), max_user_id=None) == [("user_id", reason)], key

    def test_a_payload_that_is_too_large_is_refused_as_a_whole(self) -> None:
        too_large = (
            payload(summary_text="x" * 1_000_000),
            payload(unknown=["y"] * 100_000),
            payload() | {f"k{number}": "v" * 1000 for number in range(200)},
            payload(summary_text="字" * 44_000),
        )

        assert [refusals(value) for value in too_large] == [[("payload", "is larger than 128 KiB")]] * 4

    def test_a_payload_that_contains_itself_is_refused(self) -> None:
        circle: list[object] = []
        circle.append(circle)

        assert [name for name, _ in refusals(payload(unknown=circle))] == ["payload"]

    def test_a_payload_nested_too_deeply_is_refused(self) -> None:
        deep: object = 1
        for _ in range(100_000):
            deep = [deep]

        assert [name for name, _ in refusals(payload(unknown=deep))] == ["payload"]

    def test_all_errors_are_listed_in_a_fixed_order(self) -> None:
        wrong = payload(
            event_version="9",
            user_id=0,
            preview_id="",
            dedupe_key="",
            target_url="x",
            requested_at="",
            odd=1,
            trace_id=2,
        )

        assert [name for name, _ in refusals(wrong)] == [
            *("event_version", "user_id", "preview_id", "dedupe_key", "target_url", "requested_at"),
            *("trace_id", "odd"),
        ]

    def test_two_errors_of_one_field_are_both_listed(self) -> None:
        errors = refusals(payload(dedupe_key="\x00" * 192))

        assert errors == [
            ("dedupe_key", "is longer than 191 characters"),
            ("dedupe_key", "must not hold control characters"),
        ]

    def test_a_field_name_is_listed_without_unstorable_characters(self) -> None:
        [(name, reason)] = refusals(payload() | {"a\x00\ud800" * 40: 1})

        assert reason == "is not a known field"
        assert re.fullmatch("[^\x00\ud800-\udfff]{1,64}", name)

    def test_a_field_name_that_is_no_string_is_refused(self) -> None:
        for key in (7, None, ("a", "b"), b"x"):
            unlike_json: dict[Any, Any] = payload() | {key: 1}

            assert refusals(unlike_json) == [(str(key), "is not a known field")], key

    def test_the_error_text_is_one_line(self) -> None:
        with pytest.raises(InvalidNotification, match=r"^user_id: must be positive; target_url: must not be blank$"):
            parse_payload(payload(user_id=0, target_url=""))

    def test_a_dedupe_conflict_is_an_invalid_notification(self) -> None:
        assert issubclass(DedupeConflict, InvalidNotification)
        assert issubclass(InvalidNotification, ValueError)


class TestAnyPayload:
    @given(JSON)
    @settings(suppress_health_check=[HealthCheck.too_slow])
    def test_only_invalid_notification_is_raised(self, value: object) -> None:
        refusals(value)

    @given(NEAR)
    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    def test_every_error_can_be_shown_and_stored(self, fields: dict[str, object]) -> None:
        for name, reason in refusals(payload() | fields):
            assert name
            assert reason
            assert len(name) <= 64
            assert not re.search("[\x00\ud800-\udfff]", name + reason)

    @given(ACCEPTED)
    def test_accepted_values_fit_their_columns(self, fields: dict[str, Any]) -> None:
        if refused := refusals(fields):
            assert {name for name, _ in refused} <= fields.keys()
            return

        request = parse_payload(fields)

        for name, limit in (IDENTIFIER_LENGTHS | TEXT_LENGTHS).items():
            value = getattr(request, name)
            assert len(value) <= limit
            assert not re.search("[\x00\ud800-\udfff]", value)
        assert re.match(r"/(?!/)", request.target_url)
        assert request.preview_id
        assert request.dedupe_key
