"""Plain text: trims and cuts it, and makes invisible characters visible."""

from __future__ import annotations

import html
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


_DIGITS_OF_REFERENCE = re.compile(r"(?<=&#)[0-9]+")


def unescape_html(text: str) -> str:
    """Return the text without HTML escapes.

    The standard library cannot read a number of more than 4300 digits. All numbers of eight digits mean the same: they
    are no characters.
    """
    if "&" not in text:
        return text
    return html.unescape(_DIGITS_OF_REFERENCE.sub(lambda match: match[0].lstrip("0")[:8] or "0", text))


_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_ZERO_WIDTH_JOINER = "\u200d"


def drop_half_character(text: str) -> str:
    """Return a text that was cut after some code point without half of a flag, or a joiner that joins nothing.

    A flag is two letters, and emoji such as families are joined (Unicode Standard Annex 29). What is left of other
    characters at a cut, such as a letter without its accent, is a character of its own.
    """
    letters = len(text) - len(text.rstrip(_FLAG_LETTERS))
    return (text[:-1] if letters % 2 else text).rstrip(_ZERO_WIDTH_JOINER)


_SKIN_TONES = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_JAMO_VOWELS_AND_FINALS = range(0x1160, 0x1200)


def whole_characters(text: str, limit: int) -> int:
    """Return the largest number of code points, up to a limit, that ends no character in half.

    The rules are those of Unicode Standard Annex 29 for marks, joined emoji, skin tones, flags and Korean syllables.

    Args:
        text: The text before it is cut.
        limit: Code points that may be kept.

    Returns:
        The number; the limit itself where the first character alone is longer.
    """
    position = limit
    while 0 < position < len(text) and _is_within_character(text, position):
        position -= 1
    return position or limit


def _is_within_character(text: str, position: int) -> bool:
    before, after = text[position - 1], text[position]
    if after in _FLAG_LETTERS and before in _FLAG_LETTERS:
        return (position - len(text[:position].rstrip(_FLAG_LETTERS))) % 2 == 1
    if unicodedata.category(after)[0] == "M" or _ZERO_WIDTH_JOINER in (before, after) or after == "\u200c":
        return True
    return ord(after) in _SKIN_TONES or ord(after) in _TAGS or ord(after) in _JAMO_VOWELS_AND_FINALS


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
