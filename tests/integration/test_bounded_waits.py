"""Every wait has a time limit, and a message is not sent after its deadline."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg2
import pytest
from django.conf import settings
from psycopg2.extensions import parse_dsn

from dev.proxy import Proxy
from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http.client import HttpPoster
from notifications.testing.sandbox.server import Sandbox
from smartmate.postgres import bound_waits, connect_to_one_host, list_targets


@pytest.fixture
def short_waits() -> Iterator[None]:
    bound_waits(connect=0.3, statement=0.3)
    yield
    bound_waits(connect=5, statement=35)


def test_connect_to_a_silent_server_times_out(short_waits: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"

        with pytest.raises(psycopg2.OperationalError, match="did not answer in time"):
            psycopg2.connect(url)


CONNECTS, GIVES_UP = "connects", "gives up"
ADDRESSES = {
    "{silent},{server}/{name}": CONNECTS,
    "{silent},{silent},{server}/{name}": CONNECTS,
    "{refused},{silent},{server}/{name}": CONNECTS,
    "{refused},no-such-host.invalid,{server}/{name}": CONNECTS,
    "%2Fnonexistent,{server}/{name}": CONNECTS,
    "{server},{silent}/{name}": CONNECTS,
    "a.invalid:{silent_port},b.invalid:{port}/{name}?hostaddr=127.0.0.1,127.0.0.1": CONNECTS,
    "{silent},{server}/{name}?load_balance_hosts=random": CONNECTS,
    "{silent},{server}/{name}?target_session_attrs=read-write": CONNECTS,
    "{silent},{server}/{name}?target_session_attrs=prefer-standby": CONNECTS,
    "{silent},{server}/{name}?target_session_attrs=standby": GIVES_UP,
    "{silent},{refused}/{name}": GIVES_UP,
}


def test_each_host_of_an_address_has_the_timeout_for_itself(short_waits: None) -> None:
    server = parse_dsn(os.environ["DATABASE_URL"])
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        silent_port, refused_port = silent.getsockname()[1], closed.getsockname()[1]
        closed.close()
        parts = {
            "name": server["dbname"],
            "server": f"{server['host']}:{server['port']}",
            "port": server["port"],
            "silent": f"127.0.0.1:{silent_port}",
            "silent_port": silent_port,
            "refused": f"127.0.0.1:{refused_port}",
        }
        user = f"{server['user']}:{server.get('password', '')}"

        seen = {}
        for address in ADDRESSES:
            try:
                connection = psycopg2.connect(
                    f"postgresql://{user}@{address.format(**parts)}", connection_factory=connect_to_one_host
                )
            except psycopg2.OperationalError as error:
                seen[address] = GIVES_UP if "did not answer in time" in str(error) else str(error)
            else:
                assert connection.info.port == int(server["port"])
                connection.close()
                seen[address] = CONNECTS

    assert seen == ADDRESSES
    assert settings.DATABASES["default"]["OPTIONS"]["connection_factory"] is connect_to_one_host


def test_each_address_of_a_name_is_a_host_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 5432)) for address in ("10.0.0.1", "10.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)

    targets = list_targets({"host": "db.example", "port": "5432", "sslmode": "verify-full"})

    assert [(target["host"], target["hostaddr"], target["port"]) for target in targets] == [
        ("db.example", "10.0.0.1", "5432"),
        ("db.example", "10.0.0.2", "5432"),
    ]
    assert {target["sslmode"] for target in targets} == {"verify-full"}
    for host in ("127.0.0.1", "::1", "/var/run/postgresql", "@abstract"):  # nothing to look up
        assert list_targets({"host": host}) == [{"host": host}]


def test_statement_on_a_silent_connection_times_out_and_closes_it(short_waits: None) -> None:
    url = os.environ["DATABASE_URL"]
    with Proxy(urlsplit(url).port or 5432) as proxy:
        connection = psycopg2.connect(proxy.url(url))
        proxy.mode = "silent"

        with pytest.raises(psycopg2.OperationalError, match="did not answer in time"):
            connection.cursor().execute("SELECT 1")
        assert connection.closed


def test_answered_statement_is_not_affected(short_waits: None) -> None:
    connection = psycopg2.connect(os.environ["DATABASE_URL"])

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.1), 1")
        assert cursor.fetchone() == ("", 1)
    connection.close()


def test_nothing_is_sent_after_the_deadline_of_the_request() -> None:
    with Sandbox() as sandbox:
        poster = HttpPoster(ServiceOptions(sandbox_origins=(sandbox.origin,)))
        url = f"{sandbox.origin}/flow/api/trigger-webhook/abcdefgh"
        poster.post(url, b"{}", {})  # opens the connection, so that only the send is left

        poster.options = replace(poster.options, total_timeout=1e-9)
        late = poster.post(url, b"{}", {})

        assert isinstance(late, SendResult)
        assert late.error_code == "provider_timeout"
        assert len(sandbox.deliveries()) == 1
