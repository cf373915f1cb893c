"""The provider of Feishu and Lark Base automations."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from notifications.api import replay_notifications
from notifications.conf import ServiceOptions
from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Provider, stable_id
from notifications.providers.feishu.base_automation import FeishuBaseProvider
from notifications.testing.conformance import REQUEST, TOKEN, ProviderConformance
from notifications.testing.sandbox.server import Sandbox
from tests.support.factories import make_record

KEY = "canary0123456789abcdef0123456789"
PATH = "/base/automation/webhook/event/"
GOOD = f"https://tenant.feishu.cn{PATH}{KEY}"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class TestFeishuBaseConformance(ProviderConformance):
    """The promises of every webhook provider, and those of Base automations."""

    key = KEY
    path = PATH

    def make(self, options: ServiceOptions) -> Provider:
        return FeishuBaseProvider(options)

    def test_a_retry_after_a_lost_response_is_detected_as_a_repeat(self, sandbox: Sandbox) -> None:
        lost = self.send(sandbox, "hold", read_timeout=0.3)
        again = attempt_send(
            self.make(self.options(sandbox)), dataclasses.replace(REQUEST, attempt_count=2), self.endpoint(sandbox)
        )

        assert (lost.maybe_delivered, again.outcome) == (True, "success")
        assert [delivery.accepted for delivery in sandbox.deliveries()] == [True, False]

    def test_a_retry_after_a_refusal_is_accepted(self, sandbox: Sandbox) -> None:
        self.send(sandbox, "code:800005652")
        self.send(sandbox, "ok")

        assert [delivery.accepted for delivery in sandbox.deliveries()] == [False, True]

    def test_a_retry_is_an_identical_request(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))

        for number in (1, 2):
            attempt_send(provider, dataclasses.replace(REQUEST, attempt_count=number), self.endpoint(sandbox))

        first, second = sandbox.deliveries()
        assert (first.body, first.headers) == (second.body, second.headers)
        assert first.headers["Authorization"] == f"Bearer {TOKEN}"


class TestStableId:
    OPTIONS = ServiceOptions(frontend_base_url="https://app.example.com/")

    def test_is_the_same_for_the_retries_of_a_round(self) -> None:
        retry = dataclasses.replace(REQUEST, attempt_count=4)

        assert stable_id(REQUEST, self.OPTIONS) == stable_id(retry, self.OPTIONS)

    def test_differs_for_each_replay_record_and_installation(self) -> None:
        others = [
            (dataclasses.replace(REQUEST, round=1), self.OPTIONS),
            (dataclasses.replace(REQUEST, notification_id=8), self.OPTIONS),
            (REQUEST, ServiceOptions(frontend_base_url="https://staging.example.com")),
            (REQUEST, self.OPTIONS),
        ]

        assert len({stable_id(*arguments) for arguments in others}) == 4

    def test_of_a_message_with_a_uid_does_not_depend_on_the_number_of_its_record(self) -> None:
        # A failover to a standby that lagged hands out the numbers of lost records again.
        message = dataclasses.replace(REQUEST, message_uid="0b0e7d6e-0000-4000-8000-000000000001")
        others = [
            dataclasses.replace(message, message_uid="0b0e7d6e-0000-4000-8000-000000000002"),
            dataclasses.replace(message, round=1),
        ]

        assert stable_id(message, self.OPTIONS) == stable_id(
            dataclasses.replace(message, notification_id=8, attempt_count=4), self.OPTIONS
        )
        assert len({stable_id(request, self.OPTIONS) for request in (message, *others)}) == 3

    def test_does_not_change_between_releases(self) -> None:
        # Otherwise a retry after an upgrade would be a second message.
        assert stable_id(REQUEST, self.OPTIONS) == uuid.uuid5(
            uuid.NAMESPACE_URL, "https://app.example.com/notifications/7/0"
        )


@pytest.mark.django_db(transaction=True)
def test_the_client_token_is_kept_by_retries_and_changed_by_a_replay(
    make_user: Callable[..., Any], change: Callable[..., None]
) -> None:
    with Sandbox() as sandbox:
        change(SANDBOX_ORIGINS=[sandbox.origin], RETRY_BASE_DELAY=0.001, RATE_LIMITS={"feishu_base": ""})
        url = f"{sandbox.origin}{PATH}{KEY}"
        user = make_user()
        UserNotificationChannel.objects.create(user=user, channel="feishu_base", webhook_url=url)
        record = make_record("pending", channel="feishu_base", user_id=user.pk, next_attempt_at=LONG_AGO)
        sandbox.script(KEY, "status:503", "status:503", "ok")
        for _ in range(3):
            NotificationRecord.objects.exclude(next_attempt_at=None).update(next_attempt_at=LONG_AGO)
            Engine().deliver_due(limit=1)
        replay_notifications(NotificationRecord.objects.filter(pk=record.pk), None, "again", force=True)
        Engine().deliver_due()

        tokens = [delivery.headers["Client-Token"] for delivery in sandbox.deliveries()]

    assert NotificationRecord.objects.get().status == "sent"
    assert tokens[0] == tokens[1] == tokens[2] != tokens[3]


class TestAddress:
    def test_automation_addresses_are_accepted(self) -> None:
        urls = [
            GOOD,
            *(GOOD.replace("feishu.cn", host) for host in ("larkoffice.com", "larksuite.com", "sg.larksuite.com")),
        ]

        assert [url for url in urls if FeishuBaseProvider().address_problem(url)] == []

    def test_other_addresses_are_refused_with_a_reason(self) -> None:
        urls = [
            GOOD.replace("https", "http"),
            GOOD.replace("tenant.", ""),
            GOOD.replace("tenant.", "."),
            GOOD.replace("tenant.feishu.cn", "evil.example"),
            GOOD.replace("feishu.cn", "feishu.cn.evil.example"),
            GOOD.replace("tenant.feishu", "tenantfeishu"),
            GOOD.replace("feishu.cn", "feishu.cn:443"),
            GOOD.replace("tenant", "u@tenant"),
            GOOD.replace("tenant", "TENANT"),
            GOOD.replace(PATH, "/flow/api/trigger-webhook/"),
            GOOD + "/x",
            GOOD + "?a=1",
        ]

        assert [url for url in urls if not FeishuBaseProvider().address_problem(url)] == []
