"""Plain text: trims and cuts it, and makes invisible characters visible."""

from __future__ import annotations

import re
import unicodedata

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode White_Space, as in Go's TrimSpace. Python's strip() would also remove U+001C to U+001F."""


def trim(text: str) -> str:
    """Return the text without Unicode White_Space at both ends."""
    return text.strip(WHITE_SPACE)


def truncate_text(text: str, limit: int) -> str:
    """Return the first `limit` code points of the trimmed text; an empty text for a limit of zero or less."""
    return trim(text)[: max(limit, 0)]


# Characters that reverse text, are invisible or cannot be encoded; not the joiners of emoji and some scripts.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def escape_invisible(text: str) -> str:
    """Return the text with invisible characters as JSON escapes, so that a reader can see them."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_visible(text: str) -> bool:
    """Return whether the text has a visible character; zero-width and control characters are not visible."""
    return any(unicodedata.category(char)[0] not in "CZ" and char not in "\u115f\u1160\u3164\uffa0" for char in text)
