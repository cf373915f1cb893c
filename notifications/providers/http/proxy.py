"""The way out through an HTTP proxy, for networks where only a proxy leads out.

A tunnel (CONNECT, RFC 9110, section 9.3.6) carries TLS from us to the endpoint, so the proxy sees the host and nothing
of the message. But the proxy looks up the name and connects, so it decides which address is called.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from notifications.exceptions import NotificationError


class ProxyRefused(NotificationError, OSError):
    """The proxy answered CONNECT with another status than 200. The text has the status, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Where the proxy is, and what it must be told."""

    host: str
    port: int
    authorization: str = field(repr=False)
    """Value of the header Proxy-Authorization; empty if the address has no user."""


def parse_proxy(address: str) -> Proxy | None:
    """Return the proxy of an address; None if the address is empty.

    Args:
        address: http://host:port or http://user:password@host:port, user and password percent-encoded.

    Raises:
        ValueError: It is no such address. The text does not contain it, because it may have a password.
    """
    if not address:
        return None
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise ValueError("HTTP_PROXY must be http://host:port or http://user:password@host:port")
    authorization = ""
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
    return Proxy(host=parts.hostname, port=port, authorization=authorization)
