"""One connection: to a checked address, through a proxy if there is one, with TLS. Nothing here blocks.

The functions are generators: they yield a `Wait` or a `Lookup` and go on when the loop resumes them. The loop raises
TimeoutError in them when a wait expires.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from notifications.providers.http.lookup import AddressInfo, Lookup, numeric_address
from notifications.providers.http.proxy import Proxy, ProxyRefused
from notifications.providers.http.ssrf_guard import AddressRefused, is_public, tls_context

READ = -1
"""Wait until there is something to read."""
WRITE = -2
"""Wait until something can be written."""
TARGET_LOOKUP_SECONDS = 1.0
"""Longest wait for our own resolver before a proxy is asked. Behind a proxy the resolver often knows no outer names."""
MAX_PROXY_ANSWER_BYTES = 64 * 1024
_PROXY_STATUS = re.compile(rb"HTTP/\d\.\d +(\d{3})\b")
_EVENTS = {READ: selectors.EVENT_READ, WRITE: selectors.EVENT_WRITE}


@dataclass(slots=True, eq=False)
class Connection:
    """An open connection, which the loop watches from its first wait until it is closed."""

    sock: socket.socket
    selector: selectors.BaseSelector
    """The selector of the loop."""
    watched: int = 0
    """The event that the selector reports; 0 before the first wait."""
    waiter: Any = None
    """Who waits for that event; None for an idle connection."""
    idle_since: float = 0.0
    """When its last response ended, in seconds of the monotonic clock."""

    @property
    def pending(self) -> bool:
        """Whether TLS has decrypted bytes that nobody has read."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    @property
    def unused(self) -> bool:
        """Whether an idle connection is still open, and nothing has arrived on it that nobody asked for."""
        try:
            # Not the method of a TLS socket, which takes no flags: here only the bytes on the wire matter.
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def watch(self, event: int, waiter: Any = None) -> None:
        """Let the selector report an event.

        Args:
            event: READ or WRITE.
            waiter: Who waits for it.
        """
        self.waiter = waiter
        if self.watched == 0:
            self.selector.register(self.sock, _EVENTS[event], self)
        elif self.watched != event:
            self.selector.modify(self.sock, _EVENTS[event], self)
        self.watched = event

    def close(self) -> None:
        """Close it."""
        if self.watched:
            self.selector.unregister(self.sock)
            self.watched = 0
        self.waiter = None
        self.sock.close()

    def receive(self, buffer: memoryview) -> int:
        """Return the number of bytes that were read into the buffer, 0 at the end, or READ or WRITE to wait for it."""
        try:
            return self.sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            return READ
        except ssl.SSLWantWriteError:
            return WRITE

    def send(self, data: bytes, *, timeout: float, deadline: float) -> Generator[Wait, Any, None]:
        """Write all bytes.

        Args:
            data: The bytes.
            timeout: Seconds that each wait may last.
            deadline: When all must be written, in seconds of the monotonic clock.

        Raises:
            TimeoutError: They were not written in time.
            OSError: The connection failed.
        """
        left = memoryview(data)
        while left:
            # A process that was stopped before this line must not send after it resumes: another worker may have
            # claimed the record meanwhile.
            if time.monotonic() >= deadline:
                raise TimeoutError("deadline of the whole attempt")
            try:
                left = left[self.sock.send(left) :]
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                yield Wait(self, WRITE, min(time.monotonic() + timeout, deadline))
            except ssl.SSLWantReadError:
                yield Wait(self, READ, min(time.monotonic() + timeout, deadline))


@dataclass(slots=True)
class Wait:
    """What a step of an exchange waits for: that a connection can be read or written."""

    connection: Connection
    event: int
    """READ or WRITE."""
    expires: float
    """When the wait ends without success, in seconds of the monotonic clock."""


Opening = Generator[Wait | Lookup, Any, Connection]


def open_connection(
    selector: selectors.BaseSelector,
    origin: str,
    *,
    proxy: Proxy | None,
    private_allowed: bool,
    connect_timeout: float,
    deadline: float,
) -> Opening:
    """Connect to an origin, and with https shake hands.

    The name is looked up once, and one of the addresses that were checked is connected to. A second lookup could return
    another, private address (DNS rebinding).

    Args:
        selector: The selector of the loop.
        origin: scheme://host:port.
        proxy: The proxy that leads to it; None: none.
        private_allowed: Whether its address may be private.
        connect_timeout: Seconds for each of: connecting to one address, the answer of the proxy, the handshake.
        deadline: When the attempt must have ended, in seconds of the monotonic clock.

    Raises:
        OSError: There is no connection. `AddressRefused` and `ProxyRefused` say why.
    """
    parts = urlsplit(origin)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if proxy:
        yield from _refuse_private_target(host, port, deadline)
        # The operator has named the proxy, and it usually has a private address.
        connection = yield from _connect(selector, (proxy.host, proxy.port), True, connect_timeout, deadline)
    else:
        connection = yield from _connect(selector, (host, port), private_allowed, connect_timeout, deadline)
    try:
        if proxy:
            yield from _open_tunnel(connection, host, port, proxy, min(time.monotonic() + connect_timeout, deadline))
        if parts.scheme == "https":
            yield from _shake_hands(connection, host, min(time.monotonic() + connect_timeout, deadline))
    except BaseException:
        connection.close()
        raise
    return connection


def _look_up(host: str, port: int, expires: float) -> Generator[Wait | Lookup, Any, list[AddressInfo]]:
    if address := numeric_address(host, port):
        return [address]
    found: list[AddressInfo] = yield Lookup(host, port, expires)
    return found


def _refuse_private_target(host: str, port: int, deadline: float) -> Generator[Wait | Lookup, Any, None]:
    """Refuse a host behind the proxy that our resolver knows to be private.

    The proxy looks the name up again, and we cannot see what it finds. Where our resolver does not know the name,
    which is usual in such a network, the proxy alone decides.
    """
    try:
        found = yield from _look_up(host, port, min(deadline, time.monotonic() + TARGET_LOOKUP_SECONDS))
    except (OSError, UnicodeError):
        return
    if not all(is_public(str(item[4][0])) for item in found):
        raise AddressRefused


def _connect(
    selector: selectors.BaseSelector, place: tuple[str, int], private_allowed: bool, timeout: float, deadline: float
) -> Opening:
    candidates = yield from _look_up(*place, deadline)
    allowed = [item for item in candidates if private_allowed or is_public(str(item[4][0]))]
    if not allowed:
        raise AddressRefused
    failure: OSError = OSError("no address")
    for family, kind, protocol, _name, address in allowed:
        connection = Connection(socket.socket(family, kind, protocol), selector)
        try:
            connection.sock.setblocking(False)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin_connecting(connection.sock, address)
            yield Wait(connection, WRITE, min(time.monotonic() + timeout, deadline))
            if code := connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, "connect failed")
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


def begin_connecting(sock: socket.socket, address: Any) -> None:
    """Begin to connect a socket to an address that was checked.

    Args:
        sock: A socket that does not block. It can be written when the connection is there.
        address: The address, as `socket.getaddrinfo` returns it.

    Raises:
        OSError: It failed at once.
    """
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)


def _open_tunnel(
    connection: Connection, host: str, port: int, proxy: Proxy, expires: float
) -> Generator[Wait | Lookup, Any, None]:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = {"Host": target} | ({"Proxy-Authorization": proxy.authorization} if proxy.authorization else {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    timeout = expires - time.monotonic()
    yield from connection.send(
        f"CONNECT {target} HTTP/1.1\r\n{head}\r\n".encode("ascii"), timeout=timeout, deadline=expires
    )
    answer = bytearray()
    one = memoryview(bytearray(1))
    # Byte by byte, so that nothing of what comes through the tunnel is read here.
    while not answer.endswith(b"\r\n\r\n"):
        event = connection.receive(one)
        if event in (READ, WRITE):
            yield Wait(connection, event, expires)
        elif event == 0 or len(answer) >= MAX_PROXY_ANSWER_BYTES:
            raise OSError("the proxy gave no answer")
        else:
            answer += one
    status = _PROXY_STATUS.match(answer)
    if status is None:
        raise OSError("the proxy gave no HTTP answer")
    if status[1] != b"200":
        raise ProxyRefused(status[1].decode())


def _shake_hands(connection: Connection, host: str, expires: float) -> Generator[Wait | Lookup, Any, None]:
    connection.sock = tls_context().wrap_socket(connection.sock, server_hostname=host, do_handshake_on_connect=False)
    sock: Any = connection.sock
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            yield Wait(connection, READ, expires)
        except ssl.SSLWantWriteError:
            yield Wait(connection, WRITE, expires)
        else:
            return
