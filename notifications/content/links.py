"""Finds links in a text: the path of this site, and links to other sites in every spelling."""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from importlib import resources
from urllib.parse import unquote

from django.utils.encoding import iri_to_uri

from notifications.content.text import unescape_html


def site_link(base_url: str, path: str) -> str:
    """Return the address of a page of this site, percent-encoded so that no program ends the link at a blank.

    Args:
        base_url: FRONTEND_BASE_URL.
        path: A site path; it may contain blanks and any letters. What is percent-encoded already stays.
    """
    return iri_to_uri(base_url.rstrip("/") + path)


def contains_path(text: str, path: str) -> bool:
    """Return whether the text contains exactly this site path, not a longer one such as /c-12 or /x/c-1 for /c-1."""
    if path not in text:
        return False
    ends_in_ascii = path[-1].isascii()
    for match in re.finditer(re.escape(path), text):
        before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 2]
        if before and re.match(r"[\w/.~%&=?#-]", before, re.ASCII):
            continue
        if re.match(r"[\w/~%&=?#+-]|[.,:;!@]\w", after, re.ASCII) or (not ends_in_ascii and after[:1].isalnum()):
            continue
        return True
    return False


# Each pattern takes linear time: it begins at a rare character, or where no character of the same kind precedes.
_LINK = re.compile(
    r"""
      (?<![a-z0-9])www\.                             # www. at the start of a word
    | (?<![:/a-z0-9.])/{2,}[a-z0-9-]+(?:\.[a-z0-9-]+)+  # //host.tld, ///host.tld
    | (?<![a-z0-9])(?:data|javascript|vbscript|mailto|tel|sms|blob):[^\s]   # schemes without slashes
    | (?<![a-z0-9./-])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?/                     # 10.0.0.1/
    """,
    re.VERBOSE,
)
_HOST_AND_PATH = re.compile(r"(?:[a-z0-9-]+\.)+(xn--[a-z0-9-]+|[a-z]{2,63})(?::\d{1,5})?/(?=\S)")
_WORD_WITH_HOST = re.compile(rf"(?<![a-z0-9./-]){_HOST_AND_PATH.pattern}")
_NO_SCHEME_CHARACTER = re.compile(r"[^a-z0-9+.-]")


def contains_external_link(text: str) -> bool:
    """Return whether the text contains something that a client could turn into a link to another site.

    Full-width letters, zero-width characters, backslashes, percent and HTML escapes and [.] dots do not hide one. The
    time is linear in the length of the text.
    """
    return any(_has_link(spelling) for spelling in _spellings(text))


def _has_link(text: str) -> bool:
    return bool(_LINK.search(text)) or _has_scheme(text) or _has_host_and_path(text)


def _has_host_and_path(text: str) -> bool:
    """Return whether a word begins with host.tld/path. A path of this site, such as /a/b.app/c, does not."""
    position = 0
    while (match := _WORD_WITH_HOST.search(text, position)) is not None:
        while match is not None:
            if match[1] in _top_level_domains() or match[1].startswith("xn--"):
                return True
            position = match.end()
            match = _HOST_AND_PATH.match(text, position)  # b.example/x in a.js/b.example/x
    return False


def _has_scheme(text: str) -> bool:
    """Return whether a :// has a scheme, or nothing, before it. 3://4 has none: a scheme has a letter."""
    end = text.find("://")
    start = 0
    while end >= 0:
        word = _NO_SCHEME_CHARACTER.split(text[start:end])[-1]
        if not word or not word.isascii() or any(char.isalpha() for char in word):
            return True
        start, end = end + 3, text.find("://", end + 3)
    return False


@cache
def _top_level_domains() -> frozenset[str]:
    """Return the names of the shipped list. A file name such as Vue.js ends in none of them."""
    lines = resources.files(__package__).joinpath("top_level_domains.txt").read_text(encoding="ascii").splitlines()
    return frozenset(name for line in lines if not line.startswith("#") for name in line.split())


def _spellings(text: str) -> set[str]:
    folded = _fold(text)
    unescaped = _fold(unescape_html(unquote(unquote(folded))))
    return {folded, unescaped, re.sub(r"[\[\](){}]", "", unescaped)}


def _fold(text: str) -> str:
    return text.lower() if text.isascii() and "\\" not in text else "".join(map(_fold_character, text))


@lru_cache(maxsize=4096)
def _fold_character(char: str) -> str:
    """Return the ASCII look-alike of a character, in small letters; an empty text for one that is not shown.

    One character at a time, because the normalisation of a long row of combining characters takes quadratic time.
    """
    if unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f":
        return ""
    plain = unicodedata.normalize("NFKC", char).lower()
    return plain.translate({ord("\\"): "/", ord("。"): ".", ord("⁄"): "/", ord("∕"): "/", ord("։"): ":"})
