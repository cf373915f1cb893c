"""What tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection
from django.test import override_settings
from django.utils import translation
from pytest_django import Settings

from notifications import tasks
from notifications.broker.redis_client import RedisGateway, gateway
from notifications.conf import service_options
from notifications.delivery import rate_limits
from notifications.delivery.queue_start import QueueStart
from notifications.models import UserNotificationChannel
from notifications.monitoring import conditions
from notifications.monitoring.alerting import dispatcher as alerts
from notifications.providers import get_provider
from notifications.providers.memory import MemoryProvider
from notifications.telemetry import heartbeats

pytest_plugins = ["notifications.testing.plugin", "tests.support.process_marker"]
pytest.register_assert_rewrite("tests.model.real")


@pytest.fixture(scope="session")
def redis_client() -> Iterator[redis.Redis]:
    """A plain client, for looking at what the project left in Redis."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _cheap_password_hashes() -> Iterator[None]:
    """The passwords of tests protect nothing. The default hash takes a third of a second for each user."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """No user that a test creates gets the key that records without a user of their own carry (42)."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER SEQUENCE auth_user_id_seq RESTART WITH 1000")


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    """No options, provider or gateway of one test is seen by the next, nor that Redis was away."""
    for cached in (service_options, get_provider, gateway, rate_limits._local_windows):
        cached.cache_clear()
    heartbeats._last_writes.clear()
    conditions._migrated.clear()
    alerts._last_evaluation.clear()


@pytest.fixture(autouse=True)
def _fresh_drain() -> Iterator[None]:
    """No nudge that a test has planned is sent during the next one, whose queue has another beginning."""
    yield
    tasks._process_drain.delayed_nudge.cancel()
    tasks._process_drain._queue_start = QueueStart()


@pytest.fixture(autouse=True)
def _clean_redis(redis_client: redis.Redis) -> None:
    """No lock or nudge of one test is seen by the next."""
    if keys := list(redis_client.scan_iter("smartmate:*")):
        redis_client.delete(*keys)


@pytest.fixture(autouse=True)
def _our_celery_app() -> Iterator[None]:
    """No test leaves another project's Celery app behind as the one we send by: its broker ends with its test."""
    yield
    assert current_app.main == "smartmate"


@pytest.fixture(autouse=True)
def _english() -> None:
    """The language of a request stays active in its thread; no test reads what an earlier one asked for."""
    translation.activate("en")


@pytest.fixture
def memory() -> MemoryProvider:
    """A provider that sends nothing."""
    return MemoryProvider()


@pytest.fixture
def change(settings: Settings) -> Callable[..., None]:
    """Return a function that changes keys of NOTIFICATIONS for this test."""

    def change_keys(**keys: Any) -> None:
        settings.NOTIFICATIONS = settings.NOTIFICATIONS | keys

    return change_keys


@pytest.fixture
def away() -> RedisGateway:
    """A gateway to a Redis that is not there."""
    return RedisGateway("redis://127.0.0.1:1/0", timeout=0.2, silence=60)


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    """Return a function that makes a user, with a Feishu channel if given an address."""

    def make(name: str = "alice", webhook_url: str = "", **fields: Any) -> User:
        user = get_user_model().objects.create_user(username=name, password="pw", **fields)
        if webhook_url:
            UserNotificationChannel.objects.create(user=user, channel="feishu", webhook_url=webhook_url)
        return user

    return make
