"""Which parts of an endpoint's address are secret, and the form in which an address may be shown."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

from notifications.security.secrets import mask_key

PUBLIC_PATHS = ("/flow/api/trigger-webhook/", "/open-apis/bot/v2/hook/", "/base/automation/webhook/event/")
"""Beginnings of paths that every address of a vendor has. The rest of such a path is the key."""
_ORIGIN = re.compile(r"(?:[A-Za-z][\w+.-]*:)?//(?P<host>[^/?#]*)")


@lru_cache(maxsize=1000)
def secret_parts(address: str) -> tuple[str, ...]:
    """Return the parts of an address that may be keys: all below the host, unless the vendor's path is known.

    Args:
        address: A URL, or an email address.

    Returns:
        Each segment of the path, each value of the query, the fragment and the user information, as they stand in the
        address, and decoded with and without a plus as a space. For an email address, the address.
    """
    origin = _ORIGIN.match(address)
    if not origin:
        return (address,) if address else ()
    user = origin["host"].rpartition("@")[0]
    below = _without_public_path(address[origin.end() :])
    parts = [*re.split(r"[/?&#;]", below), *re.split(r"[&#;]", below.partition("?")[2])]  # a value may contain a slash
    parts = [part for segment in parts for part in (segment, segment.partition("=")[2])]
    parts += [user, *user.split(":")]
    return tuple(dict.fromkeys(form for part in parts for form in (part, unquote(part), unquote_plus(part)) if form))


def mask_url(url: str) -> str:
    """Return an address in a form that tells two addresses apart, and that is not enough to use one.

    The host and a vendor's fixed path are shown. Of the rest, the first and the last four characters are shown if it is
    long enough. The query, the fragment and the user are hidden.

    Args:
        url: The address.
    """
    origin = _ORIGIN.match(url)
    if not origin:
        return mask_key(url)
    path = re.split(r"[?#]", url[origin.end() :])[0]
    rest = _without_public_path(path)
    host = origin["host"]
    if "@" in host:
        host = f"********@{host.rpartition('@')[2]}"
    shown = f"{url[: origin.start('host')]}{host}{path.removesuffix(rest)}"
    return f"{shown}{mask_key(rest.rstrip('/'))}"


def _without_public_path(path: str) -> str:
    known = next((head for head in PUBLIC_PATHS if path.startswith(head)), "/")
    return path.removeprefix(known)
