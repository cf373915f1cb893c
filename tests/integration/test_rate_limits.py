"""Rate limits of endpoints: shared by all processes; a record over the limit spends no attempt and no slot."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model

from notifications.api import request_notification
from notifications.broker.redis_client import RedisGateway, gateway
from notifications.delivery.engine import Engine
from notifications.delivery.locks import Locks
from notifications.delivery.rate_limits import effective_limits
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers import configured_providers
from notifications.providers.memory import MemoryProvider
from notifications.states import HoldReason, Status
from tests.support.delivery import NOW, Clock, make_due_record, options_with
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db

ADDRESS = "https://open.feishu.cn/open-apis/bot/v2/hook/"


def users_of(*addresses: str) -> list[int]:
    """Return users with a channel each, to these endpoints."""
    users = []
    for number, address in enumerate(addresses):
        user = get_user_model().objects.create_user(f"user{number}")
        UserNotificationChannel.objects.create(user=user, webhook_url=ADDRESS + address)
        users.append(user.pk)
    return users


def limited(memory: MemoryProvider, clock: Clock, limit: str, *, redis: RedisGateway | None = None) -> Engine:
    chosen = options_with(rate_limits={"feishu": limit})
    locks = Locks(redis or gateway(), ttl=60)
    return Engine(options=chosen, clock=clock, providers={"feishu": memory}, locks=locks)


def unsent() -> list[tuple[str, int, str]]:
    rows = NotificationRecord.objects.exclude(status=Status.SENT).order_by("id")
    return list(rows.values_list("status", "attempt_count", "hold_reason"))


def test_every_window_applies_and_records_over_the_limit_spend_no_attempt(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("a")
    for number in range(6):
        make_due_record(f"k{number}", user_id=user)

    result = limited(memory, clock, "100/hour;4/day").deliver_due()

    assert (result.sent, result.skipped, len(memory.requests)) == (4, 2, 4)
    assert unsent() == [("pending", 0, HoldReason.RATE_LIMITED)] * 2
    later = NotificationRecord.objects.filter(hold_reason=HoldReason.RATE_LIMITED).order_by("next_attempt_at")
    first, second = (row.next_attempt_at or NOW for row in later)
    assert first > NOW + timedelta(hours=23)
    assert second - first == timedelta(hours=6), "they become due one by one, as the limit allows"


def test_limit_is_shared_by_all_processes(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("a")
    for number in range(4):
        make_due_record(f"k{number}", user_id=user)

    sent = [limited(memory, clock, "3/day").deliver_due(limit=2).sent for _process in range(2)]

    assert sent == [2, 1]


def test_limit_applies_per_endpoint_not_per_user(memory: MemoryProvider, clock: Clock) -> None:
    for number, user in enumerate(users_of("same", "same", "other")):
        make_due_record(f"k{number}", user_id=user)

    limited(memory, clock, "1/day").deliver_due()

    assert dict(NotificationRecord.objects.values_list("dedupe_key", "status")) == {
        "k0": "sent", "k1": "pending", "k2": "sent",
    }  # fmt: skip


def test_each_process_uses_a_fifth_of_the_limit_without_redis(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("a")
    for number in range(4):
        make_due_record(f"k{number}", user_id=user)
    nowhere = RedisGateway("redis://127.0.0.1:1/0", timeout=0.2, silence=60)

    sent = [limited(memory, clock, "10/day", redis=nowhere).deliver_due(limit=1).sent for _drain in range(4)]

    assert sent == [1, 1, 0, 0], "all drains of the process share its fifth"


def test_channel_without_a_limit_sends_everything(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("a")
    for number in range(20):
        make_due_record(f"k{number}", user_id=user)

    assert limited(memory, clock, "").deliver_due().sent == 20


def test_bot_has_feishus_limit_unless_the_settings_override_it() -> None:
    own = effective_limits(configured_providers(), {})
    assert own["feishu_bot"] == "5/second;100/minute"
    assert own["feishu"] == ""
    assert effective_limits(configured_providers(), {"feishu_bot": "1/second"})["feishu_bot"] == "1/second"


def test_redis_key_of_an_endpoint_does_not_reveal_its_address(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("canary0123456789")
    make_due_record("k", user_id=user)
    limited(memory, clock, "9/day").deliver_due()

    keys = gateway().run(lambda client: [key.decode() for key in client.scan_iter("*smartmate:rate*")])
    assert keys
    assert [key for key in keys if "canary" in key] == []


def test_accepting_a_request_builds_no_rate_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("rate limits are built for sends only")

    monkeypatch.setattr("notifications.delivery.engine.RateLimits", fail)

    request_notification(payload())
