"""Foreign text and JSON is made storable in PostgreSQL."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

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
    def test_json_nested_too_deeply_is_replaced(self) -> None:
        for levels, kept in ((100, True), (101, False), (900, False)):
            nested = "[" * levels + "1" + "]" * levels

            assert clean_json(json.loads(nested)) == (nested if kept else '"(not representable as JSON)"'), levels

    @given(FOREIGN)
    @settings(suppress_health_check=[HealthCheck.too_slow])
    def test_any_value_becomes_json_that_postgresql_accepts(self, value: object) -> None:
        text = clean_json(value)

        if value is None:
            assert text is None
        else:
            assert text is not None
            assert not UNSTORABLE.search(text)
            assert "\\u0000" not in text.replace("\\\\", "")
            json.loads(text, parse_constant=refuse)

    @given(STANDARD)
    def test_json_is_kept(self, value: object) -> None:
        text = clean_json(value)

        assert (json.loads(text) if text is not None else None) == value

    def test_only_values_that_cannot_be_stored_are_replaced(self) -> None:
        values: list[tuple[object, object]] = [
            ("", ""),
            ({}, {}),
            ({"v": float("nan")}, {"v": "nan"}),
            ([float("inf"), -float("inf")], ["inf", "-inf"]),
            ({"a\x00": "b\ud800c"}, {"a\ufffd": "b\ufffdc"}),
            ({1: (2, 3)}, {"1": [2, 3]}),
            (datetime(2026, 5, 1, tzinfo=UTC), "2026-05-01 00:00:00+00:00"),
            (b"x", "b'x'"),
        ]
        for value, stored in values:
            assert json.loads(clean_json(value) or "") == stored, value

    def test_a_number_too_long_to_convert_is_replaced(self) -> None:
        assert clean_json([10**5000]) == '"(not representable as JSON)"'

    def test_a_value_that_contains_itself_is_replaced(self) -> None:
        circle: list[object] = []
        circle.append(circle)

        assert clean_json(circle) == '"(not representable as JSON)"'

    def test_a_value_that_cannot_be_converted_is_replaced(self) -> None:
        class Rude:
            def __str__(self) -> str:
                raise RuntimeError("no")

        assert clean_json({"v": Rude()}) == '"(not representable as JSON)"'


class TestCleanText:
    @given(st.text() | st.sampled_from(["\x00", "a\ud800", " \x00 "]), st.integers(0, 50))
    def test_any_text_fits_the_limit_and_can_be_stored(self, text: str, limit: int) -> None:
        cleaned = clean_text(text, limit)

        assert len(cleaned) <= limit
        assert not UNSTORABLE.search(cleaned)

    def test_a_cut_text_ends_without_a_blank(self) -> None:
        assert clean_text("  ab cd ", 3) == "ab"

    def test_a_storable_text_is_kept(self) -> None:
        assert clean_text("错误 502\n😀", 2000) == "错误 502\n😀"

    def test_other_types_are_stored_as_text(self) -> None:
        texts: list[tuple[object, str]] = [(None, ""), (502, "502"), (b"x", "b'x'"), (["a"], "['a']")]

        assert [clean_text(foreign, 2000) for foreign, _text in texts] == [text for _foreign, text in texts]
