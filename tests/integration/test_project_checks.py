"""The checks name what the project around the app lacks; a request commits all the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import override_settings

from notifications import api
from notifications.broker import nudge
from notifications.broker.redis_client import RedisGateway, RedisUnavailable
from notifications.conf import service_options
from notifications.delivery.claim import claim
from notifications.models import NotificationRecord
from notifications.monitoring.diagnostics import run_diagnostics
from smartmate.celery import app
from tests.support.payloads import payload

WRONG_ADDRESSES = (
    "h:6379",
    "redis://h:port/0",
    "redis://h:99999/0",
    "http://h",
    "redis://h/name",
    "redis://a..b/0",
    "redis://h/0?ssl_cert_reqs=required",
    "rediss://h/0?ssl_cert_reqs=maybe",
    "redis://h/0?socket_timeout=x",
    "redis://h/0?unknown=1",
)


def override_notifications(**keys: Any) -> override_settings:
    """Change keys of settings.NOTIFICATIONS."""
    return override_settings(NOTIFICATIONS=settings.NOTIFICATIONS | keys)


def found(**options: Any) -> dict[str, str]:
    """Return the messages of the app's checks by id."""
    return {str(message.id): str(message.msg) for message in run_checks(**options)}


@contextmanager
def broker(url: str, **conf: Any) -> Iterator[None]:
    """Use another broker address."""
    wanted = {"broker_url": url, "broker_write_url": url} | conf
    kept = {name: app.conf[name] for name in wanted}
    app.conf.update(wanted)
    nudge.broker.cache_clear()  # a test before may have opened a connection to the real broker
    try:
        yield
    finally:
        app.conf.update(kept)
        nudge.broker.cache_clear()


@pytest.mark.django_db(transaction=True)
def test_a_request_commits_although_no_client_can_use_the_redis_address() -> None:
    for number, address in enumerate(WRONG_ADDRESSES):
        with override_notifications(REDIS_URL=address):
            assert "notifications.E015" in found(), address
            accepted = api.request_notification(payload(dedupe_key=f"k{number}"))

        assert NotificationRecord.objects.filter(pk=accepted.record_id).exists(), address


@pytest.mark.django_db
def test_the_doctor_reports_an_address_that_no_client_can_use() -> None:
    for address in WRONG_ADDRESSES:
        with override_notifications(REDIS_URL=address), broker("redis://h:port/0"):
            results = list(run_diagnostics())

        texts = " ".join(result.text for result in results)
        assert "E015" in texts, address
        assert "E016" in texts
        assert {"settings", "broker"} <= {result.name for result in results if result.state == "error"}, address
        assert [result.state for result in results if result.name == "redis"] != ["ok"], address


def test_the_address_is_in_no_log_line_or_message(caplog: pytest.LogCaptureFixture) -> None:
    address = "redis://:pa55word@h:port/0"

    with caplog.at_level(logging.DEBUG), override_notifications(REDIS_URL=address):
        with pytest.raises(RedisUnavailable):
            RedisGateway(address, timeout=1, silence=1).run(lambda client: client.ping())
        messages = found()

    assert [record.getMessage() for record in caplog.records if record.name == "notifications.redis"]
    assert "pa55word" not in caplog.text + "".join(messages.values())


@pytest.mark.parametrize("word", ["CERT_REQUIRED", "required", "cert_required"])
def test_our_client_reads_the_certificate_words_of_celery(word: str) -> None:
    with override_notifications(REDIS_URL=f"rediss://h/0?ssl_cert_reqs={word}"):
        messages = found(include_deployment_checks=True)

    assert "notifications.E015" not in messages
    assert "notifications.W004" not in messages


def test_a_connection_that_verifies_no_certificate_is_reported() -> None:
    for query in (
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=CERT_NONE",
        "ssl_check_hostname=false",
        "ssl_cert_reqs=optional",
    ):
        with override_notifications(REDIS_URL=f"rediss://h/0?{query}"):
            assert "REDIS_URL" in found(include_deployment_checks=True)["notifications.W004"], query
        with broker(f"rediss://h/0?{query}"):
            assert "broker_url" in found(include_deployment_checks=True)["notifications.W004"], query
    with broker("rediss://h/0"):
        assert "notifications.W004" in found(include_deployment_checks=True)
    with broker("amqps://h//"):
        assert "notifications.W004" in found(include_deployment_checks=True)
    with broker("amqps://h//", broker_use_ssl={"server_hostname": None}):
        assert "notifications.W004" not in found(include_deployment_checks=True)
    with broker("rediss://h/0?ssl_cert_reqs=required"):
        assert "notifications.W004" not in found(include_deployment_checks=True)


def test_a_token_that_no_request_can_carry_is_reported() -> None:
    for token in ("abc\n", " abc", "a b", "tökén", "a\r\nb"):
        with override_notifications(METRICS_TOKEN=token):
            assert "METRICS_TOKEN" in found()["notifications.E014"], token
    with override_notifications(METRICS_TOKEN="$uperSecret123"):
        assert "notifications.E014" not in found()


def test_a_number_that_no_column_can_hold_is_reported() -> None:
    for name, value in {
        "MAX_ATTEMPTS": 2**31,
        "LEASE": 1e300,
        "RETRY_BASE_DELAY": 1e12,
        "RETENTION_DAYS": 10**12,
    }.items():
        with override_notifications(**{name: value}):
            assert name in found()["notifications.E002"], name


def test_a_project_without_time_zones_is_refused() -> None:
    with override_settings(USE_TZ=False):
        assert "USE_TZ" in found()["notifications.E017"]


@pytest.mark.django_db(transaction=True)
def test_a_database_without_autocommit_is_refused_before_anything_is_claimed() -> None:
    options = service_options()
    try:
        connection.settings_dict["AUTOCOMMIT"] = False
        assert "AUTOCOMMIT" in found()["notifications.E018"]
        with pytest.raises(ImproperlyConfigured, match="AUTOCOMMIT"):
            claim(1, channels=["feishu"], options=options, clock=None)
    finally:
        connection.settings_dict["AUTOCOMMIT"] = True
    transaction.set_autocommit(False)
    try:
        with pytest.raises(ImproperlyConfigured, match="AUTOCOMMIT"):
            claim(1, channels=["feishu"], options=options, clock=None)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert claim(1, channels=["feishu"], options=options, clock=None) == []


class SecondDatabase:
    """Sends one model of the app to another database."""

    def db_for_write(self, model: type, **hints: Any) -> str | None:
        return "other" if model.__name__ == "DeliveryAttempt" else None


def test_a_second_database_for_a_table_of_this_app_is_refused() -> None:
    with override_settings(DATABASE_ROUTERS=[SecondDatabase()]):
        message = found()["notifications.E019"]

    assert "DeliveryAttempt" in message
    assert "'other'" in message


def test_a_project_whose_beat_sends_no_sweep_is_warned() -> None:
    assert "notifications.W005" not in found(include_deployment_checks=True)

    with broker(app.conf.broker_url, beat_schedule={}):
        assert "deliver_due" in found(include_deployment_checks=True)["notifications.W005"]


def test_the_settings_of_the_tests_are_in_order() -> None:
    assert settings.USE_TZ
    assert run_checks() == []
