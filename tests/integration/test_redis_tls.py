"""Both clients of Redis refuse an impostor, unless a setting names that they may not verify it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from notifications.broker.redis_client import open_client
from tests.support.certificates import write_certificate
from tests.support.settings_reader import read_settings

pytestmark = pytest.mark.processes


class Impostor:
    """Answers TLS with a certificate that nobody vouches for, and keeps what it is given."""

    def __init__(self, directory: Path) -> None:
        self.received: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate = write_certificate(directory / "impostor.pem", "localhost")
        self._context.load_cert_chain(self.certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _address = self._listener.accept()
            except OSError:
                return
            plain.settimeout(2)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self.received.append(connection.recv(1000))
            except OSError:
                plain.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Impostor]:
    server = Impostor(tmp_path)
    yield server
    server.close()


def who_talks(settings: dict[str, Any], impostor: Impostor) -> list[str]:
    """Return which clients say something to the server. Each fails, because it answers nothing."""
    with pytest.raises(redis.RedisError):
        open_client(settings["NOTIFICATIONS"]["REDIS_URL"], timeout=5).ping()
    talking = ["locks"] if impostor.received else []
    impostor.received.clear()
    options = {"socket_timeout": 5, "socket_connect_timeout": 5, "max_retries": 0}
    with Connection(settings["CELERY_BROKER_URL"], transport_options=options) as connection:
        with pytest.raises(connection.connection_errors):
            connection.connect()
    return talking + (["broker"] if impostor.received else [])


def test_an_impostor_with_a_self_signed_certificate_gets_nothing(impostor: Impostor) -> None:
    [settings] = read_settings([{"REDIS_URL": f"rediss://localhost:{impostor.port}/0"}])

    assert who_talks(settings, impostor) == []


def test_a_named_setting_lets_both_talk_to_it(impostor: Impostor) -> None:
    [settings] = read_settings([{"REDIS_URL": f"rediss://localhost:{impostor.port}/0", "REDIS_TLS_VERIFY": "false"}])

    assert who_talks(settings, impostor) == ["locks", "broker"]


def test_both_trust_the_authority_that_the_address_names(impostor: Impostor) -> None:
    address = f"rediss://localhost:{impostor.port}/0?ssl_ca_certs={impostor.certificate}"
    [settings] = read_settings([{"REDIS_URL": address}])

    assert who_talks(settings, impostor) == ["locks", "broker"]


def test_a_certificate_for_another_host_is_refused_by_both(impostor: Impostor) -> None:
    address = f"rediss://127.0.0.1:{impostor.port}/0?ssl_ca_certs={impostor.certificate}"
    [settings] = read_settings([{"REDIS_URL": address}])

    assert who_talks(settings, impostor) == []
