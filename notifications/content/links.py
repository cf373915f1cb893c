"""Finds links in a text: the path of this site, and links to other sites in every spelling."""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote

from django.utils.encoding import iri_to_uri


def site_link(base_url: str, path: str) -> str:
    """Return the address of a page of this site, percent-encoded so that no program ends the link at a blank.

    Args:
        base_url: FRONTEND_BASE_URL.
        path: A site path; it may contain blanks and any letters. What is percent-encoded already stays.
    """
    return iri_to_uri(base_url.rstrip("/") + path)


def contains_path(text: str, path: str) -> bool:
    """Return whether the text contains exactly this site path, not a longer one such as /c-12 or /x/c-1 for /c-1."""
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
    """Return whether the text contains something that a client could turn into a link to another site.

    Full-width letters, zero-width characters, backslashes, percent and HTML escapes and [.] dots do not hide one.
    """
    return any(_LINK.search(spelling) for spelling in _spellings(text))


def _spellings(text: str) -> set[str]:
    folded = _fold(text)
    unescaped = _fold(html.unescape(unquote(unquote(folded))))
    return {folded, unescaped, re.sub(r"[\[\](){}]", "", unescaped)}


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).lower()
    plain = "".join(char for char in plain if unicodedata.category(char) != "Cf" and not "\ufe00" <= char <= "\ufe0f")
    return plain.translate({ord("\\"): "/", ord("。"): ".", ord("⁄"): "/", ord("∕"): "/", ord("։"): ":"})
