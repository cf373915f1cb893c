"""What a text or a number means as the key of a user, for each kind of user model."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import models

from notifications.user_keys import UserKey, max_user_id, plain_user_key, to_user_key, user_key_type

TEXT = "0190163d-8694-739b-aea5-966c26f8ad91"
UseKey = Callable[[Any], None]


@pytest.fixture
def use_key(monkeypatch: pytest.MonkeyPatch) -> UseKey:
    """Give the project's users a primary key of this kind."""

    def use(field: Any) -> None:
        model = type("Model", (), {"_meta": type("Meta", (), {"pk": field})})
        monkeypatch.setattr("notifications.user_keys.get_user_model", lambda: model)

    return use


def test_an_integer_key_is_a_number_that_the_table_can_hold(use_key: UseKey) -> None:
    use_key(models.AutoField(primary_key=True))
    largest = 2**31 - 1

    cases: tuple[tuple[object, UserKey | None], ...] = (
        *((7, 7), ("7", 7), ("007", 7), (largest, largest), (largest + 1, None), ("9" * 5000, None), (0, None)),
        *((-1, None), ("-1", None), ("1_0", None), (" 7", None), ("٧", None), ("", None), (True, None), (7.0, None)),
        *((None, None), (TEXT, None), (uuid.UUID(TEXT), None)),
    )
    assert [to_user_key(value) for value, _key in cases] == [key for _value, key in cases]
    assert (max_user_id(), user_key_type()) == (largest, "integer")


def test_a_uuid_key_is_a_uuid_in_any_of_its_forms(use_key: UseKey) -> None:
    use_key(models.UUIDField(primary_key=True))
    key = uuid.UUID(TEXT)

    assert {to_user_key(value) for value in (key, TEXT, TEXT.upper(), key.hex)} == {key}
    assert {to_user_key(value) for value in (7, "7", "", "ada", True, None, TEXT + "0", f"{TEXT}\x00")} == {None}
    assert (max_user_id(), user_key_type()) == (None, "uuid")


def test_a_text_key_is_any_text_that_fits_its_column(use_key: UseKey) -> None:
    use_key(models.CharField(primary_key=True, max_length=40))

    for text in ("ada", "7", " ada", "ädä/1", "x" * 40, TEXT):
        assert to_user_key(text) == text
    assert {to_user_key(value) for value in ("", "x" * 41, "a\x00", "\ud800", 7, True, None)} == {None}
    # A cast to varchar(40) would cut a longer text.
    assert (max_user_id(), user_key_type()) == (None, "varchar")


def test_a_key_in_json_is_a_number_or_a_text() -> None:
    keys: tuple[UserKey | None, ...] = (7, "ada", uuid.UUID(TEXT.upper()), None)

    assert [plain_user_key(key) for key in keys] == [7, "ada", TEXT, None]
