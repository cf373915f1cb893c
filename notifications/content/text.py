"""Plain text: trimming, cutting, and showing characters that cannot be seen."""

from __future__ import annotations

import re
import unicodedata

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode White_Space, which is what Go's TrimSpace trims; Python's strip() would also take U+001C to U+001F."""


def trim(text: str) -> str:
    """Return text without Unicode White_Space at either end."""
    return text.strip(WHITE_SPACE)


def truncate_text(text: str, limit: int) -> str:
    """Return the trimmed text's first `limit` code points; nothing for a limit of zero or less."""
    return trim(text)[: max(limit, 0)]


# What turns text around, hides in it or cannot be encoded; not the joiners that emoji and some scripts need.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def escape_invisible(text: str) -> str:
    """Return text with characters that cannot be seen written as JSON escapes."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_visible(text: str) -> bool:
    """Tell whether a reader would see anything: zero-width and control characters do not count."""
    return any(unicodedata.category(char)[0] not in "CZ" and char not in "\u115f\u1160\u3164\uffa0" for char in text)
