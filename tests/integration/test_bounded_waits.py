"""PostgreSQL that takes a connection and never answers costs its caller a bounded time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest

from dev.proxy import Proxy
from smartmate.postgres import bound_waits


@pytest.fixture
def short_waits() -> Iterator[None]:
    bound_waits(connect=0.3, statement=0.3)
    yield
    bound_waits(connect=5, statement=35)


def test_a_connection_that_is_never_answered_is_given_up(short_waits: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"

        with pytest.raises(psycopg2.OperationalError, match="did not answer in time"):
            psycopg2.connect(url)


def test_a_statement_that_is_never_answered_is_given_up_and_its_connection_closed(short_waits: None) -> None:
    url = os.environ["DATABASE_URL"]
    with Proxy(urlsplit(url).port or 5432) as proxy:
        connection = psycopg2.connect(proxy.url(url))
        proxy.mode = "silent"

        with pytest.raises(psycopg2.OperationalError, match="did not answer in time"):
            connection.cursor().execute("SELECT 1")
        assert connection.closed


def test_a_statement_that_is_answered_is_not_hurried(short_waits: None) -> None:
    connection = psycopg2.connect(os.environ["DATABASE_URL"])

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.1), 1")
        assert cursor.fetchone() == ("", 1)
    connection.close()
