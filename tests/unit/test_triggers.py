"""The payload of a trigger: everything that is refused, by field, and what is accepted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from notifications.ingest.triggers import TRIGGER_FIELDS, parse_trigger
from notifications.ingest.validation import InvalidNotification
from smartmate.triggers import SOURCES, TARGET_TYPES, TRIGGER_TYPES


def trigger(**changes: Any) -> dict[str, Any]:
    """Return a trigger that breaks no rule, with some fields changed."""
    return {
        "trigger_id": "trg-1",
        "user_id": 42,
        "trigger_type": "important_urgent_task",
        "source": "worker_due_job",
        "target_type": "task_pool",
        "target_id": 9,
        "requested_at": "2026-05-01T07:30:00Z",
    } | changes


def refused(payload: object) -> list[str]:
    with pytest.raises(InvalidNotification) as error:
        parse_trigger(payload)
    return [name for name, _reason in error.value.errors]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"trigger_id": " "}, {"trigger_id"}),
        ({"trigger_id": None, "user_id": 0}, {"trigger_id", "user_id"}),
        ({"user_id": "42"}, {"user_id"}),
        ({"trigger_type": "other"}, {"trigger_type"}),
        ({"trigger_type": 5}, {"trigger_type"}),
        ({"source": "api_dry_run"}, {"source"}),
        ({"source": "other"}, {"source"}),
        ({"target_type": ""}, {"target_type"}),
        ({"target_id": -1}, {"target_id"}),
        ({"target_id": True}, {"target_id"}),
        ({"requested_at": "yesterday"}, {"requested_at"}),
        ({"requested_at": None}, {"requested_at"}),
        ({"mock_now": "2026-05-01T07:30:00Z"}, {"mock_now"}),
        ({"mock_now": "x", "is_mock_time": True}, {"mock_now"}),
        ({"is_mock_time": "yes"}, {"is_mock_time"}),
        ({"idempotency_key": "x" * 129}, {"idempotency_key"}),
        ({"event_version": "2"}, {"event_version"}),
        ({"surprise": 1}, {"surprise"}),
    ],
)
def test_every_wrong_field_is_named(changes: dict[str, Any], fields: set[str]) -> None:
    assert set(refused(trigger(**changes))) == fields


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_what_is_no_object_is_refused_whole(value: object) -> None:
    assert refused(value) == ["payload"]


@given(
    st.sampled_from(TRIGGER_TYPES), st.sampled_from(SOURCES), st.sampled_from(TARGET_TYPES), st.integers(1, 2**31 - 1)
)
def test_whatever_is_allowed_is_accepted_and_survives_json(kind: str, source: str, target: str, number: int) -> None:
    payload = trigger(trigger_type=kind, source=source, target_type=target, target_id=number, user_id=number)

    found = parse_trigger(payload)

    assert parse_trigger(found.as_json()) == found


@given(st.dictionaries(st.sampled_from(sorted(TRIGGER_FIELDS)), st.none() | st.integers() | st.text() | st.booleans()))
def test_anything_else_is_refused_and_never_breaks(changes: dict[str, Any]) -> None:
    wrong: set[str] = set()
    try:
        parse_trigger(trigger(**changes))
    except InvalidNotification as error:
        wrong = {name for name, _reason in error.errors}

    assert wrong <= TRIGGER_FIELDS


class TestDedupe:
    def test_a_user_hears_of_a_type_once_in_half_an_hour(self) -> None:
        keys = [parse_trigger(trigger(requested_at=f"2026-05-01T07:{m}:00Z")).dedupe_key for m in ("29", "30", "59")]

        window = int(datetime(2026, 5, 1, 7, 30, tzinfo=UTC).timestamp()) // 1800
        assert keys == [f"42:important_urgent_task:{n}" for n in (window - 1, window, window)]

    def test_mock_time_decides_the_window(self) -> None:
        mocked = trigger(is_mock_time=True, mock_now="1970-01-01T00:30:00Z")

        assert parse_trigger(mocked).dedupe_key == "42:important_urgent_task:1"

    def test_the_producers_key_comes_before_the_window(self) -> None:
        assert parse_trigger(trigger(idempotency_key="k")).dedupe_key == "42:important_urgent_task:key:k"
