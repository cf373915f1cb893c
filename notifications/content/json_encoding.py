"""Encodes JSON for requests and stored results."""

from __future__ import annotations

import json
from typing import Any

import orjson

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def encode_json(value: Any) -> bytes:
    """Return a JSON value in UTF-8.

    Args:
        value: The value. What orjson refuses, such as a number of more than 64 bits, the standard library encodes.

    Raises:
        TypeError: It is no JSON value.
        UnicodeEncodeError: A text contains a lone surrogate.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return _ENCODE(value).encode()
