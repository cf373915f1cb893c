"""Every wait has a time limit, and a message is not sent after its deadline."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg2
import pytest

from dev.proxy import Proxy
from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http.client import HttpPoster
from notifications.testing.sandbox.server import Sandbox
from smartmate.postgres import bound_waits


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
        poster.pool.close()
