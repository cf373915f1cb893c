"""A drain sends webhooks in one loop, and lets threads run the providers that block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from notifications.conf.options import LOOP, THREADS
from notifications.delivery.engine import Engine
from notifications.models import DeliveryAttempt, NotificationRecord, UserNotificationChannel
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.feishu.flow import FeishuFlowProvider
from notifications.providers.http.messages import Exchange
from notifications.providers.memory import MemoryProvider
from notifications.providers.webhook_base import WebhookProvider
from notifications.states import Outcome
from notifications.testing.sandbox.server import Sandbox
from tests.support.delivery import make_due_record, options_with

pytestmark = pytest.mark.django_db
OK = SendResult(outcome=Outcome.SUCCESS)
PATH = "/flow/api/trigger-webhook/"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A receiver."""
    with Sandbox() as running:
        yield running


def users_with_flows(sandbox: Sandbox, *keys: str) -> list[int]:
    users = []
    for key in keys:
        user = get_user_model().objects.create_user(key)
        UserNotificationChannel.objects.create(user=user, webhook_url=f"{sandbox.origin}{PATH}{key}")
        users.append(user.pk)
    return users


def drain(sandbox: Sandbox, senders: str = LOOP, **providers: Any) -> Engine:
    options = options_with(sandbox_origins=(sandbox.origin,), senders=senders, read_timeout=20.0, total_timeout=25.0)
    return Engine(options=options, providers={"feishu": FeishuFlowProvider(options)} | providers)


@pytest.mark.parametrize("senders", [LOOP, THREADS])
def test_every_due_record_is_sent_once_and_settled(sandbox: Sandbox, senders: str) -> None:
    users = users_with_flows(sandbox, "aaaaaaaa", "bbbbbbbb")
    for number in range(150):
        make_due_record(f"k{number}", user_id=users[number % 2])

    result = drain(sandbox, senders).deliver_due()

    assert (result.sent, len(sandbox.deliveries())) == (150, 150)
    assert DeliveryAttempt.objects.filter(outcome=Outcome.SUCCESS, duration_ms__gte=0).count() == 150


def test_webhooks_are_sent_from_the_thread_of_the_drain(sandbox: Sandbox) -> None:
    threads: set[str] = set()

    class Watched(FeishuFlowProvider):
        def read(self, response: Any, payload: Any) -> SendResult:
            threads.add(threading.current_thread().name)
            return super().read(response, payload)

    [user] = users_with_flows(sandbox, "aaaaaaaa")
    for number in range(20):
        make_due_record(f"k{number}", user_id=user)
    options = options_with(sandbox_origins=(sandbox.origin,))

    Engine(options=options, providers={"feishu": Watched(options)}).deliver_due()

    assert threads == {threading.current_thread().name}


def test_providers_that_block_run_beside_the_loop(sandbox: Sandbox) -> None:
    [user] = users_with_flows(sandbox, "aaaaaaaa")
    sent = threading.Event()

    class Pager(MemoryProvider):
        """Returns only after the webhook was sent: it must not stop the loop."""

        def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
            assert sent.wait(20)
            return super().send(request, endpoint)

    class Watched(FeishuFlowProvider):
        def read(self, response: Any, payload: Any) -> SendResult:
            sent.set()
            return super().read(response, payload)

    options = options_with(sandbox_origins=(sandbox.origin,))
    make_due_record("page", channel="pager")
    make_due_record("flow", user_id=user)

    result = Engine(options=options, providers={"pager": Pager(), "feishu": Watched(options)}).deliver_due()

    assert result.sent == 2


class Plain(FeishuFlowProvider):
    """Posts by itself, as providers of earlier versions did."""

    def deliver(self, request: SendRequest, url: str, secret: str) -> SendResult:  # type: ignore[override]
        return self.post(url, self.payload(request), {})


class Wrapped(FeishuFlowProvider):
    """Does something around each send."""

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        return super().send(request, endpoint)


@pytest.mark.parametrize("kind", [Plain, Wrapped])
def test_a_subclass_that_does_io_of_its_own_runs_in_a_thread(
    sandbox: Sandbox, kind: type[WebhookProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    [user] = users_with_flows(sandbox, "aaaaaaaa")
    make_due_record(user_id=user)
    options = options_with(sandbox_origins=(sandbox.origin,))
    threads: list[str] = []
    send = kind.send

    def watched(self: WebhookProvider, *args: Any) -> SendResult:
        threads.append(threading.current_thread().name)
        return send(self, *args)

    monkeypatch.setattr(kind, "send", watched)

    assert (kind(options).blocks, FeishuFlowProvider(options).blocks) == (True, False)
    assert Engine(options=options, providers={"feishu": kind(options)}).deliver_due().sent == 1
    assert threads == ["send"]


class Unusual(BaseException):
    """No Exception, as of a library that ends a thread in its own way."""


@pytest.mark.parametrize("raised", [SystemExit, Unusual, KeyboardInterrupt, MemoryError])
def test_whatever_a_blocking_provider_raises_is_a_recorded_attempt(raised: type[BaseException]) -> None:
    class Faulty(MemoryProvider):
        def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
            if request.notification_id == faulty.pk:
                raise raised("canary")
            return super().send(request, endpoint)

    faulty, other = make_due_record("faulty"), make_due_record("other")

    result = Engine(options=options_with(), providers={"feishu": Faulty()}).deliver_due()

    assert (result.sent, result.failed) == (1, 1)
    [attempt] = DeliveryAttempt.objects.filter(record=faulty)
    assert (attempt.outcome, attempt.error_code) == ("temporary_fail", "internal_error")
    assert attempt.error == f"{raised.__name__} in the provider"
    other.refresh_from_db()
    assert other.status == "sent"


@pytest.mark.parametrize("raised", [SystemExit, Unusual, ZeroDivisionError])
@pytest.mark.parametrize("after", [0, 1], ids=["before the request", "after the answer"])
def test_whatever_an_exchange_raises_is_a_recorded_attempt(
    sandbox: Sandbox, raised: type[BaseException], after: int
) -> None:
    class Faulty(FeishuFlowProvider):
        def deliver(self, request: SendRequest, url: str, secret: str) -> Exchange:
            if request.notification_id == faulty.pk and not after:
                raise raised("canary")
            result = yield from super().deliver(request, url, secret)
            if request.notification_id == faulty.pk:
                raise raised("canary")
            return result

    [user] = users_with_flows(sandbox, "aaaaaaaa")
    faulty, _other = make_due_record("faulty", user_id=user), make_due_record("other", user_id=user)
    options = options_with(sandbox_origins=(sandbox.origin,))

    result = Engine(options=options, providers={"feishu": Faulty(options)}).deliver_due()

    assert (result.sent, result.failed) == (1, 1)
    [attempt] = DeliveryAttempt.objects.filter(record=faulty)
    text = f"{raised.__name__} in the provider" + "; the message may have arrived" * after
    assert (attempt.error_code, attempt.error) == ("internal_error", text)
    assert NotificationRecord.objects.get(pk=faulty.pk).status == "failed"
