"""Hiding a channel's secrets in what an endpoint answers: some echo the request, headers and all."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

STARS = "********"
_ESCAPE = re.compile(r"\\u00([0-9a-fA-F]{2})|\\([^u])")


def redact_secrets(value: Any, secrets: Collection[str]) -> Any:
    """Return a JSON value or text with the secrets blacked out, however deep they lie and however they are escaped.

    A text that holds one in an escaped form is hidden whole: better none of it than a part too many.
    """
    secrets = [secret for secret in secrets if secret]
    try:
        return _concealed(value, secrets) if secrets else value
    except RecursionError:  # nested beyond reason; a sent message must be settled all the same
        return STARS


def _concealed(value: Any, secrets: Collection[str]) -> Any:
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, STARS)
            plain = _unescaped(value)
            return value if plain is value or not any(secret in plain for secret in secrets) else STARS
        case dict():
            return {_concealed(key, secrets): _concealed(item, secrets) for key, item in value.items()}
        case list() | tuple():
            return [_concealed(item, secrets) for item in value]
        case _:
            return STARS if str(value) in secrets else value


def _unescaped(text: str) -> str:
    """Return the text without JSON's and addresses' escapes of ASCII."""
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)
    return unquote(text) if "%" in text else text
