"""Guard against server-side request forgery (SSRF): which addresses may be connected to, and whom TLS trusts."""

from __future__ import annotations

import ipaddress
import ssl
from functools import cache

from certifi import where

from notifications.exceptions import NotificationError


class AddressRefused(NotificationError, OSError):
    """The host name resolves to no public address."""

    def __init__(self) -> None:
        super().__init__("address is not public")


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    For IPv6, only the global unicast block counts. An address that wraps, maps or translates an IPv4 address is not
    public, because only the remote network knows where it leads.

    Args:
        address: IPv4 or IPv6 address in text form. A host name or an address with a zone is not public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in _GLOBAL_UNICAST or _is_isatap(ip) or ip.scope_id):
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    # Networks that `ip.is_global` accepts in some Python versions.
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # IETF protocol assignments, including Teredo
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


def _is_isatap(ip: ipaddress.IPv6Address) -> bool:
    # ISATAP (RFC 5214) marks an IPv4 address in the low 64 bits with 5EFE; a router may unwrap it.
    return int(ip) >> 32 & 0xFCFF_FFFF == 0x5EFE


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of this process: the system's certificates, and those of certifi.

    It is made once, because reading the certificates takes several times as long as a handshake.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(where())
    context.set_alpn_protocols(["http/1.1"])
    return context
