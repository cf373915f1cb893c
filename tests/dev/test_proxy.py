"""The proxy breaks connections exactly as told."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from dev.proxy import Proxy


class Echo(socketserver.StreamRequestHandler):
    """Sends each line back."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            for line in self.rfile:
                self.wfile.write(line)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with Proxy(server.server_address[1]) as running:
            yield running
        server.shutdown()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_it_passes_everything(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"one\n")

        assert client.recv(10) == b"one\n"


def test_it_loses_the_reply_to_one_request_and_resets_the_connection(proxy: Proxy) -> None:
    proxy.lose_reply_to(b"two")
    with connect(proxy) as client:
        client.sendall(b"one\n")
        assert client.recv(10) == b"one\n"
        client.sendall(b"two\n")

        with pytest.raises(ConnectionResetError):
            client.recv(10)
    assert proxy.lost_replies == 1


def test_it_loses_one_reply_with_certain_bytes(proxy: Proxy) -> None:
    proxy.lose_reply_with(b"secret")
    with connect(proxy) as client:
        client.sendall(b"a secret\n")

        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with connect(proxy) as client:
        client.sendall(b"a secret\n")
        assert client.recv(10) == b"a secret\n"


@pytest.mark.parametrize("mode", ["silent", "no-replies"])
def test_it_keeps_connections_on_which_nothing_comes_back(proxy: Proxy, mode: str) -> None:
    with connect(proxy) as client:
        proxy.mode = mode  # type: ignore[assignment]
        client.sendall(b"one\n")
        client.settimeout(0.2)

        with pytest.raises(TimeoutError):
            client.recv(10)


def test_it_refuses_new_connections_only(proxy: Proxy) -> None:
    with connect(proxy) as old:
        old.sendall(b"one\n")
        assert old.recv(10) == b"one\n"
        proxy.mode = "refuse"

        with pytest.raises(ConnectionResetError), connect(proxy) as new:  # the reset may come before connect() returns
            new.recv(10)
        old.sendall(b"two\n")
        assert old.recv(10) == b"two\n"


def test_it_resets_what_is_open(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"one\n")
        assert client.recv(10) == b"one\n"

        proxy.reset_all()

        with pytest.raises(ConnectionResetError):
            client.recv(10)


def test_an_address_leads_through_it(proxy: Proxy) -> None:
    assert proxy.url("postgresql://me:pw@10.0.0.1:5432/db") == f"postgresql://me:pw@127.0.0.1:{proxy.port}/db"
