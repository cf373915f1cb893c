"""JSON is encoded in UTF-8, also what the fast encoder refuses."""

from __future__ import annotations

import json

import pytest

from notifications.content.json_encoding import encode_json


def test_a_value_is_encoded_as_the_standard_library_reads_it() -> None:
    value = {"a": [1, 2.5, None, True, "会议 \x00 \u2028 <b>"], "deep": {"b": []}, "": ""}

    assert json.loads(encode_json(value)) == value


def test_numbers_of_more_than_64_bits_and_other_keys_are_encoded() -> None:
    assert json.loads(encode_json({"n": 2**80, "m": -(2**70)})) == {"n": 2**80, "m": -(2**70)}
    assert json.loads(encode_json({1: "a"})) == {"1": "a"}


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_json({"a": object()})
    with pytest.raises(UnicodeEncodeError):
        encode_json("\ud800")
