"""Foreign text and JSON, made fit for PostgreSQL."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from notifications.content.sanitize import clean_json, clean_text

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
FOREIGN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.sampled_from(["\x00", "a\ud800b", float("nan"), float("inf"), -float("inf"), {1, 2}, object()]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none() | st.booleans() | st.just("\x00"), inner, max_size=4)
    ),
    max_leaves=10,
)
STANDARD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"])), inner),
    max_leaves=10,
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


class TestCleanJson:
    @pytest.mark.parametrize(("levels", "kept"), [(100, True), (101, False), (900, False)])
    def test_what_is_nested_beyond_reason_is_replaced(self, levels: int, kept: bool) -> None:
        nested = "[" * levels + "1" + "]" * levels

        assert clean_json(json.loads(nested)) == (nested if kept else '"(not representable as JSON)"')

    @given(FOREIGN)
    @settings(suppress_health_check=[HealthCheck.too_slow])
    def test_whatever_comes_is_json_that_postgresql_takes(self, value: object) -> None:
        text = clean_json(value)

        if value is None:
            assert text is None
        else:
            assert text is not None
            assert not UNSTORABLE.search(text)
            assert "\\u0000" not in text.replace("\\\\", "")
            json.loads(text, parse_constant=refuse)

    @given(STANDARD)
    def test_what_is_json_already_is_kept_as_it_is(self, value: object) -> None:
        text = clean_json(value)

        assert (json.loads(text) if text is not None else None) == value

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            ("", ""),
            ({}, {}),
            ({"v": float("nan")}, {"v": "nan"}),
            ([float("inf"), -float("inf")], ["inf", "-inf"]),
            ({"a\x00": "b\ud800c"}, {"a\ufffd": "b\ufffdc"}),
            ({1: (2, 3)}, {"1": [2, 3]}),
            (datetime(2026, 5, 1, tzinfo=UTC), "2026-05-01 00:00:00+00:00"),
            (b"x", "b'x'"),
        ],
    )
    def test_replaces_what_cannot_be_stored_and_nothing_else(self, value: object, stored: object) -> None:
        assert json.loads(clean_json(value) or "") == stored

    def test_a_number_beyond_all_measure_costs_the_value_and_not_the_result(self) -> None:
        assert clean_json([10**5000]) == '"(not representable as JSON)"'

    def test_what_holds_itself_costs_no_more(self) -> None:
        circle: list[object] = []
        circle.append(circle)

        assert clean_json(circle) == '"(not representable as JSON)"'

    def test_a_value_that_cannot_even_be_shown_costs_no_more(self) -> None:
        class Rude:
            def __str__(self) -> str:
                raise RuntimeError("no")

        assert clean_json({"v": Rude()}) == '"(not representable as JSON)"'


class TestCleanText:
    @given(st.text() | st.sampled_from(["\x00", "a\ud800", " \x00 "]), st.integers(0, 50))
    def test_fits_the_column_and_can_be_stored(self, text: str, limit: int) -> None:
        cleaned = clean_text(text, limit)

        assert len(cleaned) <= limit
        assert not UNSTORABLE.search(cleaned)

    def test_no_blank_is_left_where_it_was_cut(self) -> None:
        assert clean_text("  ab cd ", 3) == "ab"

    def test_a_good_text_is_kept(self) -> None:
        assert clean_text("错误 502\n😀", 2000) == "错误 502\n😀"

    @pytest.mark.parametrize(("foreign", "text"), [(None, ""), (502, "502"), (b"x", "b'x'"), (["a"], "['a']")])
    def test_what_is_no_text_does_not_keep_a_result_from_being_stored(self, foreign: object, text: str) -> None:
        assert clean_text(foreign, 2000) == text
