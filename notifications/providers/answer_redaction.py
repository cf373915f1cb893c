"""Removes a channel's secrets from what an endpoint answers: some endpoints echo the request with all its headers."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

MASK = "********"
_ESCAPE = re.compile(r"\\u00([0-9a-fA-F]{2})|\\([^u])")


def redact_secrets(value: Any, secrets: Collection[str]) -> Any:
    """Return a JSON value or text with every secret replaced by `MASK`, at any depth.

    A text that contains a secret in an escaped form (JSON or percent encoding) is replaced as a whole. Replacing only
    the escaped part could leave some of the secret.

    Args:
        value: JSON value; it is not changed.
        secrets: Plain secrets; empty ones are ignored.
    """
    secrets = [secret for secret in secrets if secret]
    try:
        return _redact(value, secrets) if secrets else value
    except RecursionError:  # the message was sent: a deeply nested answer must not prevent its settlement
        return MASK


def _redact(value: Any, secrets: Collection[str]) -> Any:
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, MASK)
            plain = _unescape(value)
            return value if plain is value or not any(secret in plain for secret in secrets) else MASK
        case dict():
            return {_redact(key, secrets): _redact(item, secrets) for key, item in value.items()}
        case list() | tuple():
            return [_redact(item, secrets) for item in value]
        case _:
            return MASK if str(value) in secrets else value


def _unescape(text: str) -> str:
    """Return the text with ASCII characters that JSON or percent encoding escaped; the same object if none was."""
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)
    return unquote(text) if "%" in text else text
