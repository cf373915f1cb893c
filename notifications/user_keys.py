"""The primary keys of the project's users: integers, UUIDs or texts, as AUTH_USER_MODEL has them."""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import connection, models

UserKey = int | str | uuid.UUID
"""A primary key of a user."""

_DIGITS = re.compile(r"[0-9]+")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def user_key_field() -> models.Field[Any, Any]:
    """Return the field whose values are the users' keys. A key that is itself a link leads to the field it links to."""
    field: Any = get_user_model()._meta.pk
    while field.remote_field:
        field = field.target_field
    return field  # type: ignore[no-any-return]


def user_key_type() -> str:
    """Return the SQL type of a user's key, for casts.

    It has no length: a cast to `varchar(40)` would cut a longer text silently, and so name another user.
    """
    return re.sub(r"\(.*\)", "", user_key_field().rel_db_type(connection) or "")


def max_user_id() -> int | None:
    """Return the largest key that the user table can hold; None if the project's users have no integer keys."""
    field = user_key_field()
    if not isinstance(field, models.IntegerField):
        return None
    return connection.ops.integer_field_range(field.get_internal_type())[1] or models.BigIntegerField.MAX_BIGINT


def to_user_key(value: object) -> UserKey | None:
    """Return the key that a value means, as the user model has it. The user need not exist.

    Args:
        value: A key, or its text, such as an argument of a command. A number is no text, and no UUID.

    Returns:
        The key; None if no user can have it.
    """
    field = user_key_field()
    text = str(value)
    if isinstance(field, models.IntegerField):
        # Not int() alone, which reads "1_0" and the digits of every script.
        if isinstance(value, bool) or not isinstance(value, int | str) or not _DIGITS.fullmatch(text):
            return None
        limit = max_user_id() or 0
        return int(text) if len(text) <= len(str(limit)) and 1 <= int(text) <= limit else None
    if not isinstance(value, str | uuid.UUID) or not text or _UNSTORABLE.search(text):
        return None
    try:
        key: UserKey = field.to_python(value)
    except ValidationError:
        return None
    return None if isinstance(key, str) and len(key) > (field.max_length or len(key)) else key


def plain_user_key(key: UserKey | None) -> int | str | None:
    """Return a key as JSON has it: an integer as a number, a UUID as its canonical text.

    Args:
        key: A key as the user model has it, or None for no user.
    """
    return str(key) if isinstance(key, uuid.UUID) else key
