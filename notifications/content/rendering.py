"""The text a user reads: trimming, cutting, refusing links, and adding our own."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import NamedTuple
from urllib.parse import unquote

from notifications.conf import DEFAULT_FALLBACK_TEXT

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode White_Space, which is what Go's TrimSpace trims; Python's strip() would also take U+001C to U+001F."""


def trim(text: str) -> str:
    """Return text without Unicode White_Space at either end."""
    return text.strip(WHITE_SPACE)


def truncate_text(text: str, limit: int) -> str:
    """Return the trimmed text's first `limit` code points; nothing for a limit of zero or less."""
    return trim(text)[: max(limit, 0)]


class MessageTemplate(NamedTuple):
    """What is stored of a message."""

    summary_text: str
    fallback_text: str
    fallback_used: bool


def normalize_message_template(summary: str, fallback: str, max_runes: int) -> MessageTemplate:
    """Decide what is stored: the summary cut to `max_runes` code points, or the fallback.

    The fallback stands in for a summary that is blank or holds an external link. A fallback that is blank, or that is
    needed and holds a link itself, gives way to the built-in text.
    """
    summary, fallback = trim(summary), trim(fallback) or DEFAULT_FALLBACK_TEXT
    if summary and not contains_external_link(summary):
        return MessageTemplate(trim(truncate_text(summary, max_runes)), fallback, False)
    return MessageTemplate("", _linkless(fallback), True)


def build_message_text(*, summary: str, fallback: str, fallback_used: bool, target_url: str) -> tuple[str, bool]:
    """Return the text to send, and whether the record says that it is the fallback.

    The fallback also stands in for a summary that shows nothing; as in the Go service, the flag is not raised by that.
    The site path is added on a line of its own unless the text already holds exactly that path.
    """
    use_fallback = fallback_used or not is_visible(summary)
    text = _linkless(trim(fallback) or DEFAULT_FALLBACK_TEXT) if use_fallback else summary
    url = trim(target_url)
    return (text if not url or contains_path(text, url) else f"{text}\n{url}"), fallback_used


def _linkless(text: str) -> str:
    return DEFAULT_FALLBACK_TEXT if contains_external_link(text) else text


# What turns text around, hides in it or cannot be encoded; not the joiners that emoji and some scripts need.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return text with characters that cannot be seen written as JSON escapes."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_visible(text: str) -> bool:
    """Tell whether a reader would see anything: zero-width and control characters do not count."""
    return any(unicodedata.category(char)[0] not in "CZ" and char not in "\u115f\u1160\u3164\uffa0" for char in text)


def contains_path(text: str, path: str) -> bool:
    """Tell whether text holds this very site path, not one it is only a part of (/c-1 in /c-12 or /x/c-1)."""
    ends_in_ascii = path[-1].isascii()
    for match in re.finditer(re.escape(path), text):
        before, after = text[: match.start()][-1:], text[match.end() :]
        if before and re.match(r"[\w/.~%&=?#-]", before, re.ASCII):
            continue
        if re.match(r"[\w/~%&=?#+-]|[.,:;!@]\w", after, re.ASCII) or (not ends_in_ascii and after[:1].isalnum()):
            continue
        return True
    return False


_LINK = re.compile(
    r"""
    (?<![0-9a-z+.-])(?:[a-z][a-z0-9+.-]*)?://        # any scheme, or a bare ://; 3://4 is no scheme
    | [a-z][a-z0-9+.-]*://                           # a scheme glued to digits or dots before it
    | (?<![a-z0-9])www\.                             # www. at the start of a word
    | (?<![:/a-z0-9.])/{2,}[a-z0-9-]+(?:\.[a-z0-9-]+)+  # //host.tld, ///host.tld
    | (?<![a-z0-9])(?:data|javascript|vbscript|mailto|tel|sms|blob):[^\s]   # schemes without slashes
    | (?<![a-z0-9./-])(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?/[^\s]             # host.tld/path
    | (?<![a-z0-9./-])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?/                     # 10.0.0.1/
    """,
    re.VERBOSE,
)


def contains_external_link(text: str) -> bool:
    """Tell whether text holds something a reader's client could make a link to elsewhere.

    Looks through full-width letters, zero-width characters, backslashes, percent and HTML escapes and [.] dots.
    """
    return any(_LINK.search(form) for form in _readings(text))


def _readings(text: str) -> set[str]:
    folded = _fold(text)
    unescaped = _fold(html.unescape(unquote(unquote(folded))))
    return {folded, unescaped, re.sub(r"[\[\](){}]", "", unescaped)}


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).lower()
    plain = "".join(char for char in plain if unicodedata.category(char) != "Cf" and not "\ufe00" <= char <= "\ufe0f")
    return plain.translate({ord("\\"): "/", ord("。"): ".", ord("⁄"): "/", ord("∕"): "/", ord("։"): ":"})
