"""Sockets that go only where they may and never outstay the deadline of their request."""

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


class AddressRefused(NewConnectionError):
    """The name resolves to an address on the inside of a network."""


class Limits(threading.local):
    """Bounds of the request this thread is making."""

    deadline: float = 0.0
    """Moment on the monotonic clock after which no read may start."""
    inside_allowed: bool = False
    """Whether loopback and private addresses may be reached: the sandbox of demo and tests."""

    def left(self) -> float:
        """Return the seconds left. Raises TimeoutError when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline of the whole request")
        return left


limits = Limits()


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the open internet; what is no address, or names a zone, is not.

    Of IPv6 only the global unicast block counts: whatever wraps, maps or translates an IPv4 address is refused with it,
    since only the far end knows where that leads.
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
    # What Python's own table leaves out in one version or another.
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocol assignments, Teredo among them
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


def _is_isatap(ip: ipaddress.IPv6Address) -> bool:
    """Tell whether a router may unwrap an IPv4 address from the low half, marked by 5EFE."""
    return int(ip) >> 32 & 0xFCFF_FFFF == 0x5EFE


class _DeadlineMixin:
    """Reading never waits past the deadline, however slowly the bytes drip; nothing is sent after it."""

    def sendall(self, *args: Any) -> None:
        # A process that was stopped just before must not send when it wakes: by then another may hold its row.
        limits.left()
        super().sendall(*args)  # type: ignore[misc]

    def recv_into(self, *args: Any) -> int:
        left = limits.left()
        if left < (self.gettimeout() or left + 1):  # type: ignore[attr-defined]
            self.settimeout(left)  # type: ignore[attr-defined]
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]


class DeadlineSocket(_DeadlineMixin, socket.socket):
    """A plain socket under the deadline."""


class DeadlineSSLSocket(_DeadlineMixin, ssl.SSLSocket):
    """A TLS socket under the deadline."""


@cache
def tls_context() -> ssl.SSLContext:
    """Return the one context of this process, like urllib3's own, whose sockets obey the deadline."""
    context = create_urllib3_context()
    context.load_default_certs()
    context.sslsocket_class = DeadlineSSLSocket
    return context


class _Guarded:
    """Connects to the address that was checked, so that a second look-up cannot lead elsewhere."""

    host: str
    port: int
    timeout: float
    _dns_host: str
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        addresses = [item for item in found if limits.inside_allowed or is_public(str(item[4][0]))]
        if not addresses:
            raise AddressRefused(self, "address is not public")  # type: ignore[arg-type]
        failure: OSError = OSError("no address")
        for family, kind, protocol, _name, address in addresses:
            sock = DeadlineSocket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(min(self.timeout, limits.left()))
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "connect timed out") from failure
        raise NewConnectionError(self, "connect failed") from failure  # type: ignore[arg-type]


class GuardedHTTPConnection(_Guarded, HTTPConnection):  # type: ignore[misc]
    """Plain HTTP, for the sandbox."""


class GuardedHTTPSConnection(_Guarded, HTTPSConnection):  # type: ignore[misc]
    """HTTPS."""
