"""Foreign text and JSON made fit for PostgreSQL: no answer of a provider may keep a result from being stored."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from notifications.content.text import trim, truncate_text

MAX_JSON_DEPTH = 100
"""Levels that JSON may have: whoever reads it back, however deep in calls, must not run out of stack."""

_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: object, limit: int) -> str:
    """Return text PostgreSQL can store, whatever came: no NUL, no lone surrogates, cut to `limit` and trimmed."""
    return trim(truncate_text(_UNSTORABLE.sub("\ufffd", "" if text is None else str(text)), limit))


def clean_json(value: Any) -> str | None:
    """Return JSON that a jsonb column takes, whatever a provider handed us; None for None.

    What JSON or jsonb cannot hold (NaN, NUL, lone surrogates, objects) is replaced, and all of what is nested deeper
    than MAX_JSON_DEPTH: a sent message must be settled, and its record must be readable.
    """
    if value is None:
        return None
    return _plain_json(value) or _cleaned_json(value)


def _plain_json(value: Any) -> str:
    """Return the JSON of what holds nothing odd, as nearly every value does; or an empty string."""
    try:
        text = _ENCODE(value)
        text.encode()
    except Exception:  # a foreign object may raise anything when it is shown
        return ""
    return text if "\\u0000" not in text and text.count("[") + text.count("{") <= MAX_JSON_DEPTH else ""


def _cleaned_json(value: Any) -> str:
    try:
        return _ENCODE(_storable(value))
    except Exception:
        return json.dumps("(not representable as JSON)")


def _storable(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > MAX_JSON_DEPTH:
        raise RecursionError
    if isinstance(value, dict):
        return {_storable(str(key)): _storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item, depth + 1) for item in value]
    return value if value is None or isinstance(value, (bool, int)) else str(value)
