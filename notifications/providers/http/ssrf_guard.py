"""Guard against server-side request forgery (SSRF): sockets that connect only to public addresses.

The sockets also enforce the deadline of the request that the current thread makes.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from functools import cache
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from notifications.exceptions import NotificationError


class AddressRefused(NotificationError, NewConnectionError):
    """The host name resolves to no public address."""


class RequestDeadline(threading.local):
    """Bounds of the request that the current thread makes. Each thread has its own values."""

    at: float = 0.0
    """Time of the monotonic clock at which the request must have ended."""
    private_allowed: bool = False
    """True if the request may connect to loopback and private addresses: those of a sandbox."""

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline, always more than 0.

        Raises:
            TimeoutError: The deadline has passed.
        """
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("deadline of the whole request")
        return remaining


request_deadline = RequestDeadline()


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


class _DeadlineMixin:
    """A socket that neither sends nor waits for data after the deadline."""

    def sendall(self, *args: Any) -> None:
        # A process that was stopped before this line must not send after it resumes: another worker may have
        # claimed the record meanwhile.
        request_deadline.remaining_seconds()
        super().sendall(*args)  # type: ignore[misc]

    def recv_into(self, *args: Any) -> int:
        # The timeout of a socket bounds one read. This bounds all reads of an answer together.
        remaining = request_deadline.remaining_seconds()
        if remaining < (self.gettimeout() or remaining + 1):  # type: ignore[attr-defined]
            self.settimeout(remaining)  # type: ignore[attr-defined]
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]


class DeadlineSocket(_DeadlineMixin, socket.socket):
    """A plain socket that enforces `request_deadline`."""


class DeadlineSSLSocket(_DeadlineMixin, ssl.SSLSocket):
    """A TLS socket that enforces `request_deadline`."""


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context of this process: urllib3's defaults, with sockets that enforce the deadline."""
    context = create_urllib3_context()
    context.load_default_certs()
    context.sslsocket_class = DeadlineSSLSocket
    return context


class _GuardedMixin:
    """Resolves the host once, checks the addresses and connects to a checked one.

    urllib3 would resolve the name itself. A second lookup could return another, private address (DNS rebinding).
    """

    host: str
    port: int
    timeout: float
    _dns_host: str
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        try:
            candidates = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        allowed = [item for item in candidates if request_deadline.private_allowed or is_public(str(item[4][0]))]
        if not allowed:
            raise AddressRefused(self, "address is not public")  # type: ignore[arg-type]
        failure: OSError = OSError("no address")
        for family, kind, protocol, _name, address in allowed:
            sock = DeadlineSocket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(min(self.timeout, request_deadline.remaining_seconds()))
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "connect timed out") from failure
        raise NewConnectionError(self, "connect failed") from failure  # type: ignore[arg-type]


class GuardedHTTPConnection(_GuardedMixin, HTTPConnection):  # type: ignore[misc]
    """An HTTP connection to a checked address. Only a sandbox has plain HTTP addresses."""


class GuardedHTTPSConnection(_GuardedMixin, HTTPSConnection):  # type: ignore[misc]
    """An HTTPS connection to a checked address."""
