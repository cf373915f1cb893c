"""Timeouts for PostgreSQL that also work when the server hangs, or disappears without closing the connection.

With these timeouts libpq connects without blocking, and leaves it to its caller when to give up. It would wait for the
first of several hosts until then, and never try the others. So they are tried here, one after another.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import select
import socket
import time
from collections.abc import Iterator
from itertools import zip_longest

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, STATUS_SETUP, connection, make_dsn, parse_dsn, set_wait_callback

Target = dict[str, str]
"""The parts of a connection string with one host."""


def bound_waits(*, connect: float, statement: float) -> None:
    """Make every wait of this process for PostgreSQL fail with OperationalError after some time.

    libpq has no such timeout: its caller would wait forever for a server that accepts bytes and never answers.

    Args:
        connect: Seconds for connecting to one host.
        statement: Seconds for any other wait. Longer than the server's own statement_timeout, whose error message is
            better.
    """

    def wait(waiting: connection) -> None:
        deadline = time.monotonic() + (connect if waiting.status == STATUS_SETUP else statement)
        while (state := waiting.poll()) != POLL_OK:
            ready = select.poll()
            ready.register(waiting.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
            if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise psycopg2.OperationalError("PostgreSQL did not answer in time")

    set_wait_callback(wait)


def connect_to_one_host(dsn: str) -> connection:
    """Connect to the first host that accepts us. Each host, and each address of its name, has the timeout for itself.

    `psycopg2.connect` calls this function as its `connection_factory`.

    Args:
        dsn: A connection string of libpq, with any number of hosts.

    Returns:
        The connection, to a server that `target_session_attrs` allows.

    Raises:
        OperationalError: No host accepted us. The text has the reason of each.
    """
    reasons = []
    for target in list_targets(parse_dsn(dsn)):
        try:
            return connection(make_dsn(**target))
        except psycopg2.OperationalError as error:
            reasons.append(str(error).strip())
    raise psycopg2.OperationalError("\n".join(dict.fromkeys(reasons)))


def list_targets(parts: Target) -> list[Target]:
    """Return a connection string for each address of each host, in the order in which libpq tries them.

    https://www.postgresql.org/docs/current/libpq-connect.html describes `hostaddr`, `port`, `load_balance_hosts` and
    `target_session_attrs`.

    Args:
        parts: The parts of a connection string.
    """
    hosts, addresses, ports = (parts.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    last_port = ports[0] if len(ports) == 1 else ""  # a single port is that of all hosts
    targets = [
        parts | {"host": host, "port": port, "hostaddr": address}
        for host, address, port in zip_longest(hosts, addresses, ports, fillvalue="")
        for port in [port or last_port]
        for address in ([address] if address else _resolve(host, port))
    ]
    if parts.get("load_balance_hosts") == "random":
        random.shuffle(targets)
    targets = [{name: value for name, value in target.items() if value} for target in targets]
    if parts.get("target_session_attrs") == "prefer-standby":
        return [target | {"target_session_attrs": kind} for kind in ("standby", "any") for target in targets]
    return targets


def _resolve(host: str, port: str) -> Iterator[str]:
    """Yield the addresses of a name; an empty text where there is nothing to look up, or nothing was found."""
    found = []
    if host and not host.startswith(("/", "@")) and not _is_number(host):
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
    yield from dict.fromkeys(str(entry[4][0]) for entry in found) if found else [""]


def _is_number(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
