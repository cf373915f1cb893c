"""Rate limits of endpoints: shared by all processes; a record over the limit spends no attempt and no slot."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db.models.functions import Now
from limits import parse_many

from notifications.api import request_notification
from notifications.broker.redis_client import RedisGateway, gateway
from notifications.clock import database_now
from notifications.delivery.engine import Engine
from notifications.delivery.locks import Locks
from notifications.delivery.rate_limits import LocalWindows, effective_limits
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers import configured_providers
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from notifications.states import HoldReason, Status
from tests.support.delivery import NOW, Clock, make_due_record, options_with
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db

HOUR = 3600.0
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
    assert second - first < timedelta(seconds=1), "they become due as the limit allows: both after a day"


def test_a_record_is_planned_once_and_sent_at_that_time(memory: MemoryProvider) -> None:
    [user] = users_of("a")
    for number in range(12):
        make_due_record(f"k{number}", user_id=user)
    engine = Engine(
        options=options_with(rate_limits={"feishu": "5/hour;10/day"}),
        providers={"feishu": memory},
        locks=Locks(gateway(), ttl=60),
    )

    engine.deliver_due()

    waiting = NotificationRecord.objects.filter(hold_reason=HoldReason.RATE_LIMITED).order_by("id")
    delays = [seconds_from_now(row) for row in waiting]
    assert len(memory.requests) == 5
    assert delays == pytest.approx([HOUR] * 5 + [24 * HOUR] * 2, abs=60), "both windows are used fully"
    waiting.update(next_attempt_at=Now())
    assert engine.deliver_due().sent == 0, "late or early: the window of the sends decides"
    assert [seconds_from_now(row) for row in waiting] == pytest.approx([HOUR] * 5 + [24 * HOUR] * 2, abs=60)


def test_new_records_wait_behind_those_that_are_planned(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("a")
    for number in range(4):
        make_due_record(f"k{number}", user_id=user)
    limited(memory, clock, "2/hour").deliver_due()
    make_due_record("late", user_id=user)

    limited(memory, clock, "2/hour").deliver_due()

    late = NotificationRecord.objects.get(dedupe_key="late")
    assert late.next_attempt_at is not None
    assert late.next_attempt_at - NOW > timedelta(hours=1, minutes=59)


def test_send_now_keeps_the_place_in_the_plan(memory: MemoryProvider, clock: Clock) -> None:
    [user] = users_of("a")
    for number in range(3):
        make_due_record(f"k{number}", user_id=user)
    limited(memory, clock, "1/hour").deliver_due()
    chosen = NotificationRecord.objects.filter(dedupe_key="k1")

    NotificationService(clock=clock).send_now(NotificationRecord.objects.filter(dedupe_key="k1"), None, "test")
    limited(memory, clock, "1/hour").deliver_due()

    row = chosen.get()
    assert row.hold_reason == HoldReason.RATE_LIMITED
    assert row.next_attempt_at is not None
    assert row.next_attempt_at - NOW < timedelta(hours=1, minutes=1)


def seconds_from_now(row: NotificationRecord) -> float:
    row.refresh_from_db()
    assert row.next_attempt_at is not None
    return (row.next_attempt_at - database_now()).total_seconds()


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


class TestClocksThatDiffer:
    @pytest.mark.parametrize("limit", ["3/minute", "15/minute"], ids=["redis", "without redis"])
    @pytest.mark.parametrize("wrong_by", [3600, 20, -20, -3600])
    def test_a_workers_clock_neither_fills_nor_empties_the_shared_window(
        self, memory: MemoryProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch, wrong_by: float, limit: str
    ) -> None:
        away = RedisGateway("redis://127.0.0.1:1/0", timeout=0.2, silence=60)
        redis = away if limit == "15/minute" else gateway()  # without Redis a fifth is allowed
        [user] = users_of("a")
        for number in range(5):
            make_due_record(f"k{number}", user_id=user)
        with monkeypatch.context() as other_machine:
            right = time.time
            other_machine.setattr("time.time", lambda: right() + wrong_by)
            first = limited(memory, clock, limit, redis=redis).deliver_due(limit=2)

        second = limited(memory, clock, limit, redis=redis).deliver_due()

        assert (first.sent, second.sent) == (2, 1)
        waiting = NotificationRecord.objects.filter(hold_reason=HoldReason.RATE_LIMITED).order_by("next_attempt_at")
        delays = [((row.next_attempt_at or NOW) - NOW).total_seconds() for row in waiting]
        assert 50 < delays[0] <= 60.1
        assert delays[1] - delays[0] == pytest.approx(4.0 if redis is away else 0.0, abs=0.1)

    def test_the_clock_of_redis_may_be_set_back(self, memory: MemoryProvider, clock: Clock) -> None:
        [user] = users_of("a")
        make_due_record("k1", user_id=user)
        limited(memory, clock, "1/minute").deliver_due()
        client = gateway().run(lambda client: client)
        [key] = [key for key in client.scan_iter("*smartmate:rate*") if b"plan" not in key]
        client.lset(key, 0, f"{time.time() + 3600:.6f}")
        make_due_record("k2", user_id=user)

        assert limited(memory, clock, "1/minute").deliver_due().sent == 1

    def test_a_send_that_one_window_refuses_is_counted_in_none(self, memory: MemoryProvider, clock: Clock) -> None:
        [user] = users_of("a")
        for number in range(4):
            make_due_record(f"k{number}", user_id=user)

        assert limited(memory, clock, "2/hour;100/day").deliver_due().sent == 2

        client = gateway().run(lambda client: client)
        keys = [key for key in client.scan_iter("*smartmate:rate*") if b"plan" not in key]
        counts = {key.decode().split(":", 3)[-1]: client.llen(key) for key in keys}
        assert counts == {"2:3600": 2, "100:86400": 2}


def test_local_windows_without_a_recent_send_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("notifications.delivery.rate_limits.time.monotonic", lambda: now)
    monkeypatch.setattr("notifications.delivery.rate_limits.MAX_LOCAL_WINDOWS", 2)
    windows, limit = LocalWindows(), parse_many("1/minute")
    assert [windows.count_send(limit, key) for key in ("a", "b", "c", "a")] == [0, 0, 0, 60]

    now = 1061.0
    assert [windows.count_send(limit, key) for key in ("c", "a")] == [0, 0]
    assert len(windows._sends) == 2
