"""Rules for the webhook addresses that a provider accepts. They apply when a channel is saved and before each send."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.providers.http.messages import origin_of

_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\]")
FORBIDDEN_CHARACTERS = gettext_noop("contains characters that are not allowed in an address")
NOT_AN_ADDRESS = gettext_noop("is not an address")
NOT_HTTPS = gettext_noop("must begin with https://")
EXTRA_PARTS = gettext_noop("must have no user, query or fragment")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """An accepted address has https, a known host without a port, a known path, and no user, query or fragment.

    The `wrong_...` texts and `extras` complete the sentence "The webhook address ...". They are marked with
    `gettext_noop`; the admin form translates them.
    """

    hosts: re.Pattern[str]
    """Pattern that must match the whole host, including the port if the address has one."""
    wrong_host: str
    """Text for another host."""
    path: re.Pattern[str]
    """Pattern that must match the whole path."""
    wrong_path: str
    """Text for another path."""
    named_hosts: str = ""
    """Name of the option that lists further hosts, which the operator has named."""
    query_allowed: bool = False
    extras: str = EXTRA_PARTS
    """Text for an address with a user, a fragment or a query that is not allowed."""

    def problem(self, url: str, options: ServiceOptions) -> str:
        """Return why an address is not accepted, or an empty string if it is.

        Args:
            url: The address.
            options: An origin in its `sandbox_origins` is accepted instead of https and a known host.
        """
        if not url.isascii() or _FORBIDDEN_CHARACTERS.search(url):
            return FORBIDDEN_CHARACTERS
        try:
            parts = urlsplit(url)
        except ValueError:
            return NOT_AN_ADDRESS
        if origin_of(url) not in options.sandbox_origins:
            if parts.scheme != "https":
                return NOT_HTTPS
            named = getattr(options, self.named_hosts) if self.named_hosts else ()
            if not self.hosts.fullmatch(parts.netloc) and parts.netloc not in named:
                return self.wrong_host
        if "@" in parts.netloc or "#" in url or ("?" in url and not self.query_allowed):
            return self.extras
        return "" if self.path.fullmatch(parts.path) else self.wrong_path
