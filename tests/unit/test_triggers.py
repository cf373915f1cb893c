"""The payload of a trigger: every refusal by field, what is accepted, and the composer that is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from notifications.ingest.triggers import TRIGGER_FIELDS, Trigger, compose, parse_trigger
from notifications.ingest.validation import InvalidNotification
from smartmate.triggers import SOURCES, TARGET_TYPES, TRIGGER_TYPES
from tests.support.payloads import trigger

Change = Callable[..., None]
REFUSED: tuple[tuple[dict[str, Any], set[str]], ...] = (
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
)


def refused_fields(payload: object) -> set[str]:
    """Return the names of the fields that are refused."""
    try:
        parse_trigger(payload)
    except InvalidNotification as error:
        return {name for name, _reason in error.errors}
    return set()


def test_every_wrong_field_is_named() -> None:
    for changes, fields in REFUSED:
        assert refused_fields(trigger(**changes)) == fields, changes


def test_a_payload_that_is_no_object_is_refused() -> None:
    values: list[Any] = [None, [], "x", 5]

    assert [refused_fields(value) for value in values] == [{"payload"}] * 4


@given(
    st.sampled_from(TRIGGER_TYPES), st.sampled_from(SOURCES), st.sampled_from(TARGET_TYPES), st.integers(1, 2**31 - 1)
)
def test_the_projects_words_are_accepted_and_survive_json(kind: str, source: str, target: str, number: int) -> None:
    payload = trigger(trigger_type=kind, source=source, target_type=target, target_id=number, user_id=number)

    parsed = parse_trigger(payload)

    assert parse_trigger(parsed.as_json()) == parsed


def test_a_project_without_a_vocabulary_accepts_any_word(change: Change) -> None:
    change(TRIGGER_TYPES=[], TRIGGER_SOURCES=[], TRIGGER_TARGET_TYPES=[])

    parsed = parse_trigger(trigger(trigger_type="moved", source="planner", target_type="meeting"))

    assert (parsed.trigger_type, parsed.source, parsed.target_type) == ("moved", "planner", "meeting")
    assert refused_fields(trigger(trigger_type="", source="x" * 65, target_type=5)) == {
        *("trigger_type", "source", "target_type"),
    }


@given(st.dictionaries(st.sampled_from(sorted(TRIGGER_FIELDS)), st.none() | st.integers() | st.text() | st.booleans()))
def test_any_payload_is_accepted_or_refused_by_field(changes: dict[str, Any]) -> None:
    assert refused_fields(trigger(**changes)) <= TRIGGER_FIELDS


class TestDedupeKey:
    def test_a_user_gets_one_notification_per_type_and_half_hour(self) -> None:
        keys = [parse_trigger(trigger(requested_at=f"2026-05-01T07:{m}:00Z")).dedupe_key for m in ("29", "30", "59")]

        window = int(datetime(2026, 5, 1, 7, 30, tzinfo=UTC).timestamp()) // 1800
        assert keys == [f"42:important_urgent_task:{n}" for n in (window - 1, window, window)]

    def test_mock_time_decides_the_window(self) -> None:
        mocked = trigger(is_mock_time=True, mock_now="1970-01-01T00:30:00Z")

        assert parse_trigger(mocked).dedupe_key == "42:important_urgent_task:1"

    def test_the_idempotency_key_replaces_the_window(self) -> None:
        assert parse_trigger(trigger(idempotency_key="k")).dedupe_key == "42:important_urgent_task:key:k"


def compose_nothing(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Make no notification."""
    return []


def compose_by_the_old_path(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Call the function that was the default composer, as a composer of an earlier version could."""
    from notifications.composer import compose as old_compose

    made: list[dict[str, Any]] = old_compose(trigger)
    return made


class TestCompose:
    def test_calls_the_projects_composer(self, change: Change) -> None:
        parsed = parse_trigger(trigger())

        [payload] = compose(parsed)
        change(TRIGGER_COMPOSER=f"{__name__}.compose_nothing")

        assert payload["target_url"] == "/tasks/9"
        assert compose(parsed) == []

    @pytest.mark.parametrize("path", ["", "notifications.composer.compose"])
    def test_without_a_composer_the_setting_is_named(self, change: Change, path: str) -> None:
        change(TRIGGER_COMPOSER=path)

        with pytest.raises(InvalidNotification, match="TRIGGER_COMPOSER"):
            compose(parse_trigger(trigger()))

    @pytest.mark.filterwarnings("ignore:notifications.composer.compose moved:DeprecationWarning")
    def test_a_composer_that_calls_the_old_path_does_not_loop(self, change: Change) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.compose_by_the_old_path")

        with pytest.raises(InvalidNotification, match="TRIGGER_COMPOSER"):
            compose(parse_trigger(trigger()))
