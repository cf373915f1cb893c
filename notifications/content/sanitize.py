"""Makes foreign text and JSON storable in PostgreSQL, so that every result of a provider can be stored."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from notifications.content.text import trim, truncate_text

MAX_JSON_DEPTH = 100
"""Levels of nesting that JSON may have.

Code that reads it back must not run out of stack, however deep its own calls are.
"""

_ONLY_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: object, limit: int) -> str:
    """Return a text that PostgreSQL can store.

    Args:
        text: Any object; None is an empty text.
        limit: Longest result, in characters.

    Returns:
        The object as text, NUL and lone surrogates replaced, cut and trimmed.
    """
    if text is None or text == "":
        return ""
    return trim(truncate_text(_UNSTORABLE.sub("\ufffd", str(text)), limit))


def clean_json(value: Any) -> str | None:
    """Return JSON that a jsonb column accepts, because a sent message must be settled and its record be readable.

    Args:
        value: Any object of a provider.

    Returns:
        The JSON text; None for None. What JSON or jsonb cannot hold (NaN, NUL, lone surrogates, objects) is replaced
        by a text. A value that is nested deeper than MAX_JSON_DEPTH is replaced as a whole.
    """
    if value is None:
        return None
    return _encode_plain(value) or _encode_replaced(value)


def _encode_plain(value: Any) -> str:
    """Return the JSON of a value that needs no replacement, as nearly every one; else an empty string."""
    try:
        text = orjson.dumps(value, option=_ONLY_JSON).decode()
        if "null" in text:  # orjson writes NaN as null
            text = _ENCODE(value)
            text.encode()
    except Exception:  # a foreign object may raise anything when it is converted
        return ""
    return text if "\\u0000" not in text and text.count("[") + text.count("{") <= MAX_JSON_DEPTH else ""


def _encode_replaced(value: Any) -> str:
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
