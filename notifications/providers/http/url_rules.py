"""Where a channel's address may lead: the rules that a provider has for it, judged on saving and before each send."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.providers.http.client import origin_of

_ODD = re.compile(r"[\x00-\x20\x7f\\]")
ODD_CHARACTERS = gettext_noop("has characters that do not belong in an address")
NO_ADDRESS = gettext_noop("is not an address")
NOT_HTTPS = gettext_noop("must begin with https://")
EXTRAS = gettext_noop("must have no user, query or fragment")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """https, a known host without a port, a known path, and no user, query or fragment."""

    hosts: re.Pattern[str]
    """What the host, with its port if it names one, must match whole."""
    wrong_host: str
    """Said of any other, in words that are marked for translation."""
    path: re.Pattern[str]
    wrong_path: str
    query_allowed: bool = False
    extras: str = EXTRAS
    """Said of a user, query or fragment."""

    def problem(self, url: str, options: ServiceOptions) -> str:
        """Return why this address may not be used, or an empty string.

        An origin in SANDBOX_ORIGINS stands in for scheme and host.
        """
        if not url.isascii() or _ODD.search(url):
            return ODD_CHARACTERS
        try:
            parts = urlsplit(url)
        except ValueError:
            return NO_ADDRESS
        if origin_of(url) not in options.sandbox_origins:
            if parts.scheme != "https":
                return NOT_HTTPS
            if not self.hosts.fullmatch(parts.netloc):
                return self.wrong_host
        if "@" in parts.netloc or "#" in url or ("?" in url and not self.query_allowed):
            return self.extras
        return "" if self.path.fullmatch(parts.path) else self.wrong_path
