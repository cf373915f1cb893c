"""Removes a channel's secrets from what an endpoint answers: some endpoints echo the request with all its headers."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from notifications.content.text import unescape_html

MASK = "********"
MIN_DISTINCT_LENGTH = 8
"""Characters from which on a secret is hidden wherever it stands. A shorter text stands in many words by chance."""
MIN_TOKEN_LENGTH = 4
"""Characters from which on a short token hides the whole text in which it stands as a word."""
MIN_CUT_LENGTH = 4
"""Characters of a secret that are hidden at the end of a text that was cut off within it."""
_JSON_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([^ux]))")
_CUT_ESCAPE = re.compile(r"(?:%[0-9a-fA-F]?|\\[ux]?[0-9a-fA-F]{0,3}|&#?[0-9a-zA-Z]{0,7})\Z")
_ESCAPE = re.compile(r"[\\%&]")
"""How every escape begins."""
_MAX_ESCAPES = 3
"""Escapes within each other that are undone."""


class Redactor:
    """Hides the secrets of one channel.

    A secret of `MIN_DISTINCT_LENGTH` characters or more is replaced by `MASK` wherever it stands, in small or capital
    letters. A shorter one is replaced by asterisks where it is a whole segment of a path, or a value of a query or of
    JSON; elsewhere it is a word like others. A short token that stands elsewhere as a word hides the whole text.

    A text that contains a secret in an escaped form (JSON, HTML or percent encoding) is replaced as a whole. Replacing
    only the escaped part could leave some of the secret. Base64 is not undone: no secret is sent in this form, as no
    address with user information is accepted.

    Args:
        secrets: Tokens and addresses; empty ones are ignored.
        segments: Parts of an address (see `secret_parts`); empty ones are ignored.
    """

    def __init__(self, secrets: Collection[str], segments: Collection[str]) -> None:
        self._distinct: list[str] = []
        self._short: list[str] = []
        for text in {*secrets, *segments}:
            if len(text) >= MIN_DISTINCT_LENGTH or "@" in text:  # an email address is distinct, however short it is
                self._distinct.append(text.lower())
            elif text:
                self._short.append(text)
        self._distinct.sort(key=len, reverse=True)  # one may be a part of another
        self._words = [text for text in secrets if MIN_TOKEN_LENGTH <= len(text) < MIN_DISTINCT_LENGTH]

    def is_clean(self, text: str) -> bool:
        """Return whether a text has nothing to hide, and no escape in which something could be hidden.

        This is a cheap answer for nearly every text: False does not mean that there is something to hide.
        """
        if _ESCAPE.search(text):
            return False
        lower = text.lower()
        return not (
            any(secret in lower for secret in self._distinct)
            or any(secret in text for secret in self._short)
            or self._cut_length(text)
        )

    def redact(self, value: Any) -> Any:
        """Return a JSON value without the secrets, at any depth. The value is not changed."""
        if not value:
            return value
        try:
            return self._redact_cut_text(value) if isinstance(value, str) else self._redact(value)
        except (RecursionError, ValueError):
            # Deep nesting, or a number too long to write. The message was sent: its answer must not prevent settlement.
            return MASK

    def _redact(self, value: Any) -> Any:
        match value:
            case str():
                return "*" * len(value) if value in self._short else self._redact_text(value)
            case dict():
                return {self._redact_text(key): self._redact(item) for key, item in value.items()}
            case list() | tuple():
                return [self._redact(item) for item in value]
            case _:
                text = str(value).lower()
                secret = text in self._distinct or text in self._words
                return "*" * (len(text) - 2) if secret else value  # with its quotes, it is as long as the number

    def _redact_cut_text(self, text: str) -> str:
        """Return a text without the secrets, and without the beginning of one at its end: it may have been cut off."""
        text = self._redact_text(text, cut=True)
        if length := self._cut_length(text):
            return text[:-length] + MASK
        return text

    def _cut_length(self, text: str) -> int:
        """Return how many characters at the end of a text are the beginning of a secret."""
        lower = text.lower()
        for secret in self._distinct:
            if secret[:MIN_CUT_LENGTH] not in lower[-len(secret) :]:
                continue
            for length in range(min(len(secret) - 1, len(lower)), MIN_CUT_LENGTH - 1, -1):
                if lower.endswith(secret[:length]):
                    return length
        return 0

    def _redact_text(self, text: str, *, cut: bool = False) -> str:
        text = plain = self._hide(text)
        if not _ESCAPE.search(text):
            return text
        for decode in _CUT_DECODERS if cut else _DECODERS:
            if (decoded := decode(plain)) != plain:
                if self._hide(decoded) != decoded or (cut and self._cut_length(decoded)):
                    return MASK
                plain = decoded
        return text

    def _hide(self, text: str) -> str:
        lower = text.lower()
        if any(secret in lower for secret in self._distinct):
            text = re.sub("|".join(map(re.escape, self._distinct)), MASK, text, flags=re.IGNORECASE)
        if short := [secret for secret in self._short if secret in text]:
            pattern = rf"(?:(?<=[/=])|(?<=[Bb]earer ))(?:{_alternatives(short)})(?=$|[/?#&;,\s\"'<>\\])"
            text = re.sub(pattern, lambda match: "*" * len(match[0]), text)
        if words := [word for word in self._words if word in text]:
            if re.search(rf"(?<!\w)(?:{_alternatives(words)})(?!\w)", text):
                return MASK[: len(text)]
        return text


@lru_cache(maxsize=1000)
def redactor(secrets: tuple[str, ...], segments: tuple[str, ...]) -> Redactor:
    """Return the redactor of these secrets.

    Args:
        secrets: As for `Redactor`.
        segments: As for `Redactor`.
    """
    return Redactor(secrets, segments)


def _alternatives(texts: Collection[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))


def _decode_json(text: str) -> str:
    if "\\" not in text:
        return text
    return _JSON_ESCAPE.sub(lambda match: match[3] or chr(int(match[1] or match[2], 16)), text)


def _decode_percent(text: str) -> str:
    return unquote(text) if "%" in text else text


def _drop_cut_escape(text: str) -> str:
    return _CUT_ESCAPE.sub("", text)


_DECODERS = (_decode_json, unescape_html, _decode_percent) * _MAX_ESCAPES
_CUT_DECODERS = (*(step for decode in _DECODERS for step in (_drop_cut_escape, decode)), _drop_cut_escape)
