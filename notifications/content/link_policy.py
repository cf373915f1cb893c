"""The policy for links in messages of `notify`: to which sites they may lead (LINKS)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from notifications.conf import ServiceOptions
from notifications.conf.options import ANY_SITE
from notifications.content.links import contains_external_link


def link_problem(url: str, options: ServiceOptions) -> str | Promise:
    """Return why a message may not have this link; empty if it may.

    Args:
        url: A path of the project's own site, or an address with http:// or https://.
        options: For `links` and `frontend_base_url`.
    """
    if url.startswith("/") and not url.startswith("//") and "\\" not in url:
        return "" if options.frontend_base_url else _("is a path, and FRONTEND_BASE_URL is not set")
    origin = _origin(url)
    if not origin:
        return _("must be a path that starts with one /, or an address with http:// or https://")
    if ANY_SITE in options.links or origin in _allowed_origins(options):
        return ""
    return _("must not lead to another site; LINKS allows: %(allowed)s") % {"allowed": ", ".join(options.links)}


def text_problem(text: str, options: ServiceOptions) -> str | Promise:
    """Return why a message may not have this text, because of a link in it; empty if it may.

    Args:
        text: The text.
        options: As for `link_problem`.
    """
    if ANY_SITE in options.links:
        return ""
    for origin in _allowed_origins(options):
        text = re.sub(rf"{re.escape(origin)}(?=[/?#\s]|\Z)", "", text, flags=re.IGNORECASE)
    if contains_external_link(text):
        return _("must not have a link to another site; LINKS allows: %(allowed)s") % {
            "allowed": ", ".join(options.links)
        }
    return ""


def _allowed_origins(options: ServiceOptions) -> set[str]:
    own = _origin(options.frontend_base_url)
    return {origin for origin in (own, *map(_origin, options.links)) if origin}


def _origin(url: str) -> str:
    """Return scheme, host and port of an address in small letters; empty if it has no scheme of the web or no host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    # A browser reads a backslash as a slash, and what stands before an @ is no host.
    if parts.scheme not in ("http", "https") or not host or "\\" in url or "@" in parts.netloc:
        return ""
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")
