"""An endpoint that needs a person, or keeps failing: its records wait, spend nothing, and go when it is well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail

from notifications.delivery import circuit_breaker, held_records, project_faults
from notifications.delivery.admission import admit_healthy
from notifications.delivery.claim import claim
from notifications.delivery.engine import Engine
from notifications.delivery.settlement import HOLD_RECHECK_SECONDS
from notifications.models import DeliveryAttempt, NotificationRecord, UserNotificationChannel
from notifications.monitoring.alerting.owner_emails import email_channel_owners
from notifications.providers.base import SendResult
from notifications.providers.memory import MemoryProvider
from notifications.states import HoldReason, Outcome, Status
from tests.support.delivery import NOW, OK, TRY_LATER, Clock, make_due_record, options_with

pytestmark = pytest.mark.django_db

REFUSED = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="provider_config", error_message="code 19001: invalid")
BAD_TEXT = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="payload_invalid", error_message="code 9499")


@pytest.fixture
def channel() -> UserNotificationChannel:
    user = get_user_model().objects.create_user("owner")
    return UserNotificationChannel.objects.create(user=user, webhook_url="https://www.feishu.cn/flow/api/x")


def deliver(memory: MemoryProvider, clock: Clock, **changes: object) -> int:
    """Deliver what is due one after the other, and return the number of sends."""
    settings = options_with(**({"send_slots": 1, "probe_interval": 30.0, "resume_rate": 1.0} | changes))
    return Engine(options=settings, clock=clock, providers={"feishu": memory}).deliver_due().retried


def stored(channel: UserNotificationChannel, *keys: str) -> list[NotificationRecord]:
    return [make_due_record(key, user_id=channel.user_id) for key in keys]


def states() -> list[tuple[str, str, int, str]]:
    rows = NotificationRecord.objects.order_by("id")
    return list(rows.values_list("dedupe_key", "status", "attempt_count", "hold_reason"))


class TestPause:
    def test_wrong_settings_pause_the_channel_and_hold_its_records_without_an_attempt(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, "a", "b", "c")
        memory.script(REFUSED)

        assert deliver(memory, clock) == 1

        channel.refresh_from_db()
        assert (channel.paused_at, channel.pause_reason) == (NOW, "code 19001: invalid")
        assert states() == [
            ("a", "failed", 1, "channel_paused"), ("b", "pending", 0, "channel_paused"),
            ("c", "pending", 0, "channel_paused"),
        ]  # fmt: skip

    def test_every_failure_that_only_the_owner_can_correct_pauses_and_no_other(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        permanent, temporary = Outcome.PERMANENT_FAIL, Outcome.TEMPORARY_FAIL
        rows = [
            (permanent, "provider_auth_failed", False, True),
            (permanent, "provider_config", False, True),
            (permanent, "provider_auth_failed", True, False),
            (permanent, "provider_config", True, False),
            (temporary, "provider_auth_failed", True, False),
            (temporary, "provider_config", False, False),
            (permanent, "payload_invalid", False, False),
            (permanent, "invalid_url", False, False),
            (permanent, "recipient_missing", False, False),
        ]

        for outcome, code, project_at_fault, paused in rows:
            NotificationRecord.objects.all().delete()
            UserNotificationChannel.objects.update(paused_at=None, release_at=None)
            stored(channel, *(f"{number}" for number in range(20)))
            result = SendResult(outcome=outcome, error_code=code, project_at_fault=project_at_fault)
            memory.script(*[result] * 20)
            sends = deliver(memory, clock)
            memory.script()

            channel.refresh_from_db()
            row = (outcome, code, project_at_fault)
            assert (channel.paused_at is not None, sends) == (paused, 1 if paused else 20), row
            held = NotificationRecord.objects.filter(hold_reason="channel_paused").count()
            assert held == (20 if paused else 0), row
            assert NotificationRecord.objects.filter(last_error_code=code).count() == sends, row

    def test_fault_of_the_project_is_logged_as_an_error_once(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        project_faults.reset_reported_faults()
        stored(channel, "a", "b")
        fault = SendResult(
            outcome=Outcome.TEMPORARY_FAIL,
            error_code="provider_auth_failed",
            error_message="reply 535 (check EMAIL_HOST_USER)",
            project_at_fault=True,
        )
        memory.script(fault, fault)

        deliver(memory, clock)

        errors = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
        assert errors == ["feishu fails until this installation is corrected: reply 535 (check EMAIL_HOST_USER)"]

    def test_paused_channel_does_not_affect_other_users(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        UserNotificationChannel.objects.update(paused_at=NOW)
        stored(channel, "held")
        make_due_record("other", user_id=channel.user.pk + 1)

        assert deliver(memory, clock) == 1
        assert dict(NotificationRecord.objects.values_list("dedupe_key", "status")) == {
            "held": "pending", "other": "sent",
        }  # fmt: skip

    def test_refusal_of_the_last_attempt_makes_the_record_dead(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        make_due_record("a", user_id=channel.user_id, attempt_count=4, status=Status.FAILED)
        memory.script(REFUSED)

        deliver(memory, clock)

        assert states() == [("a", "dead", 5, "")]

    def test_refused_message_does_not_pause_the_channel(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, "a", "b")
        memory.script(BAD_TEXT, OK)

        assert deliver(memory, clock) == 2
        channel.refresh_from_db()
        assert (channel.paused_at, channel.failures) == (None, 0)

    def test_late_refusal_does_not_pause_a_channel_with_a_new_address(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        class AddressChangingProvider(MemoryProvider):
            def send(self, *args: object) -> SendResult:
                changed = UserNotificationChannel(webhook_url="https://www.feishu.cn/flow/api/another")
                UserNotificationChannel.objects.update(webhook_url=changed.webhook_url)
                return REFUSED

        [row] = stored(channel, "a")
        Engine(options=options_with(), clock=clock, providers={"feishu": AddressChangingProvider()}).deliver_one(row.pk)

        channel.refresh_from_db()
        row.refresh_from_db()
        assert channel.paused_at is None
        assert (row.status, row.next_attempt_at, row.hold_reason) == (Status.FAILED, NOW, "")

    def test_test_message_is_sent_to_a_paused_or_failing_channel_whichever_process_claims_it(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        for state in ({"paused_at": NOW}, {"paused_at": None, "failures": 5, "probe_at": NOW + timedelta(hours=1)}):
            UserNotificationChannel.objects.update(**state)
            key = f"test:{channel.user_id}:{len(memory.requests)}"
            make_due_record(key, user_id=channel.user_id, trigger_type="test")

            assert deliver(memory, clock) == 1, state


class TestResume:
    def test_held_records_are_released_oldest_first_at_the_resume_rate(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, "a", "b", "c")
        UserNotificationChannel.objects.update(paused_at=NOW)
        deliver(memory, clock)
        clock.forward(seconds=10)

        assert circuit_breaker.resume_channel(channel.pk, options_with(resume_rate=0.5, sweep_interval=60), clock)

        due = NotificationRecord.objects.order_by("id").values_list("next_attempt_at", "hold_reason")
        assert list(due) == [(NOW + timedelta(seconds=10 + wait), "") for wait in (0, 2, 4)]
        channel.refresh_from_db()
        assert (channel.paused_at, channel.pause_reason, channel.release_at) == (None, "", None)

    def test_each_sweep_releases_one_batch_for_all_processes_together(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, "a", "b", "c")
        UserNotificationChannel.objects.update(paused_at=NOW)
        deliver(memory, clock)
        slow = options_with(resume_rate=2, sweep_interval=1)

        assert circuit_breaker.resume_channel(channel.pk, slow, clock)
        assert [state[3] for state in states()] == ["", "", "channel_paused"]

        for _process in range(3):
            held_records.release_and_probe_channels(slow, clock)
        assert [state[3] for state in states()] == ["", "", "channel_paused"], (
            "the rate applies to all processes together"
        )

        clock.forward(seconds=1)
        held_records.release_and_probe_channels(slow, clock)
        assert [state[3] for state in states()] == ["", "", ""]
        channel.refresh_from_db()
        assert channel.release_at is None

    def test_nothing_is_released_if_the_channel_is_paused_again(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, "a")
        UserNotificationChannel.objects.update(paused_at=NOW)
        deliver(memory, clock)

        UserNotificationChannel.objects.update(release_at=NOW)
        held_records.release_and_probe_channels(options_with(), clock)

        assert [state[3] for state in states()] == ["channel_paused"]

    def test_record_of_a_lost_worker_is_held_without_its_lease_and_with_its_lost_attempt(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        make_due_record("a", user_id=channel.user_id, status=Status.SENDING, attempt_count=1)
        UserNotificationChannel.objects.update(paused_at=NOW)
        assert deliver(memory, clock) == 0
        assert states() == [("a", "failed", 1, "channel_paused")]
        assert list(DeliveryAttempt.objects.values_list("number", "outcome")) == [(1, "lost")]
        assert NotificationRecord.objects.cancellable().count() == 1

        clock.forward(seconds=HOLD_RECHECK_SECONDS)
        assert deliver(memory, clock) == 0
        assert DeliveryAttempt.objects.count() == 1

        circuit_breaker.resume_channel(channel.pk, options_with(), clock)

        assert deliver(memory, clock) == 1
        assert states() == [("a", "sent", 2, "")]


class TestProbe:
    def failing(self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel) -> None:
        """Let five records fail, so that the endpoint is only probed, and store three more records."""
        stored(channel, *(f"failed{number}" for number in range(circuit_breaker.PROBE_AFTER_FAILURES)))
        memory.script(*[TRY_LATER] * circuit_breaker.PROBE_AFTER_FAILURES)
        assert deliver(memory, clock) == circuit_breaker.PROBE_AFTER_FAILURES
        stored(channel, "a", "b", "c")

    def test_failing_endpoint_gets_one_probe_per_interval(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        self.failing(memory, clock, channel)
        memory.script(*[TRY_LATER] * 9)

        assert deliver(memory, clock) == 0
        assert {state[3] for state in states()[5:]} == {"endpoint_failing"}

        sends = []
        for _interval in range(3):
            clock.forward(seconds=30)
            held_records.release_and_probe_channels(options_with(sweep_interval=60), clock)
            sends.append(deliver(memory, clock))
        assert sends == [1, 1, 1]
        assert [state[2] for state in states()[5:]] == [1, 1, 1], "each record was the probe once, the oldest first"

    def test_one_of_many_claimed_records_is_the_probe(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        self.failing(memory, clock, channel)
        clock.forward(seconds=30)
        memory.script(TRY_LATER)

        assert deliver(memory, clock, send_slots=8) == 1

    @pytest.mark.parametrize("answer", [OK, SendResult(outcome="permanent_fail", error_code="payload_invalid")])
    def test_a_probe_that_is_answered_releases_the_held_records(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel, answer: SendResult
    ) -> None:
        self.failing(memory, clock, channel)
        deliver(memory, clock)
        clock.forward(seconds=30)
        held_records.release_and_probe_channels(options_with(), clock)
        memory.script(answer)

        assert deliver(memory, clock) == 1 + 1, "the probe and the first released record"
        clock.forward(seconds=2)
        assert deliver(memory, clock) == 1
        channel.refresh_from_db()
        assert (channel.failures, channel.probe_at) == (0, None)

    def test_one_success_resets_the_failure_count(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, *"abcdefghi")
        memory.script(*[TRY_LATER] * 4, OK, *[TRY_LATER] * 4)

        assert deliver(memory, clock) == 9
        channel.refresh_from_db()
        assert (channel.failures, channel.probe_at) == (4, None)


LIMITED = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_rate_limited", error_message="HTTP 429")
CLOCK_REFUSED = SendResult(
    outcome=Outcome.TEMPORARY_FAIL,
    error_code="provider_auth_failed",
    error_message="HTTP 401 (check the clock)",
    project_at_fault=True,
    holds_endpoint=True,
)


class TestEndpointThatTakesNothing:
    """A long rate limit, or a wrong clock of ours: no record becomes dead for it."""

    def test_each_kind_holds_the_channel_after_its_number_of_answers_in_a_row(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        rows: list[tuple[str, list[SendResult], int, bool]] = [
            ("three rate limits", [LIMITED] * 9, 3, True),
            ("two rate limits", [LIMITED, LIMITED, OK, *[OK] * 6], 9, False),
            ("a success between", [LIMITED, LIMITED, OK, LIMITED, LIMITED, *[OK] * 4], 9, False),
            ("four other failures", [*[TRY_LATER] * 4, OK, *[OK] * 4], 9, False),
            ("failures, then a rate limit", [TRY_LATER, TRY_LATER, LIMITED, *[OK] * 6], 3, True),
            ("one wrong clock", [CLOCK_REFUSED] * 9, 1, True),
        ]

        for name, answers, sends, held in rows:
            NotificationRecord.objects.all().delete()
            UserNotificationChannel.objects.update(failures=0, probe_at=None, release_at=None, pause_reason="")
            stored(channel, *"abcdefghi")
            memory.script(*answers)

            assert deliver(memory, clock) == sends, name
            memory.script()
            channel.refresh_from_db()
            assert (channel.probe_at is not None, channel.paused_at) == (held, None), name
            waiting = NotificationRecord.objects.filter(hold_reason="endpoint_failing", attempt_count=0).count()
            assert waiting == (9 - sends if held else 0), name
            assert not NotificationRecord.objects.filter(status="dead").exists(), name

    def test_the_only_record_outlasts_a_rate_limit_that_is_longer_than_its_attempts(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        for answer in (LIMITED, CLOCK_REFUSED):
            NotificationRecord.objects.all().delete()
            UserNotificationChannel.objects.update(failures=0, probe_at=None)
            [row] = stored(channel, "a")
            memory.script(*[answer] * 8)
            attempts = 0
            for _round in range(40):
                attempts += deliver(memory, clock)
                clock.forward(seconds=600)
                held_records.release_and_probe_channels(options_with(sweep_interval=60), clock)
                if attempts == 9:
                    break

            row.refresh_from_db()
            assert (attempts, row.status, row.attempt_count, row.hold_reason) == (9, "sent", 9, ""), answer
            assert list(row.attempts.order_by("number").values_list("number", flat=True)) == list(range(1, 10)), answer
            channel.refresh_from_db()
            assert (channel.failures, channel.probe_at, channel.pause_reason) == (0, None, ""), answer

    def test_the_probe_waits_as_long_as_the_endpoint_asked(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, *"abcd")
        memory.script(*[dataclasses.replace(LIMITED, retry_after=1200)] * 3)

        deliver(memory, clock)

        channel.refresh_from_db()
        assert channel.probe_at == NOW + timedelta(seconds=1200)

    def test_a_test_message_is_not_held(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        UserNotificationChannel.objects.update(failures=7)
        [row] = [make_due_record("a", user_id=channel.user_id, max_attempts=1)]
        memory.script(LIMITED)

        deliver(memory, clock)

        row.refresh_from_db()
        assert row.status == "dead"

    def test_the_owner_is_told_of_a_rate_limit_once_and_not_of_our_clock(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(OWNER_MAIL_FROM="notifications@example.com")
        get_user_model().objects.update(email="owner@example.com")
        stored(channel, *"abcdef")
        memory.script(CLOCK_REFUSED)
        deliver(memory, clock)
        assert email_channel_owners() == 0

        UserNotificationChannel.objects.update(failures=0, probe_at=None)
        for _hold in range(2):
            NotificationRecord.objects.update(next_attempt_at=clock.now)
            memory.script(*[LIMITED] * 3)
            deliver(memory, clock)
            email_channel_owners()
            email_channel_owners()
            circuit_breaker.resume_channel(channel.pk, options_with(), clock)

        [message] = mail.outbox
        assert "HTTP 429" in message.body
        assert "without any action" in message.body


class TestRaceOfHoldAndRelease:
    """A drain can hold a record after another process has released everything that was held until then."""

    OPTIONS = options_with(resume_rate=10.0, sweep_interval=60.0)

    def test_record_held_after_the_release_is_released_by_the_next_sweep(
        self, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        stored(channel, "late")
        UserNotificationChannel.objects.update(failures=5, probe_at=NOW + timedelta(seconds=30))
        rows = claim(1, channels=["feishu"], options=self.OPTIONS, clock=clock)
        circuit_breaker.resume_channel(channel.pk, self.OPTIONS, clock)

        assert admit_healthy(rows, self.OPTIONS, clock) == []
        clock.forward(seconds=60)
        held_records.release_and_probe_channels(self.OPTIONS, clock)

        assert [row.next_attempt_at for row in NotificationRecord.objects.all()] == [clock.now]
        assert states() == [("late", "pending", 0, "")]

    def test_record_whose_process_died_after_holding_it_is_released_by_the_next_sweep(
        self, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        states_of_others: list[dict[str, Any]] = [
            {},
            {"paused_at": NOW},
            {"failures": 5, "probe_at": NOW + timedelta(hours=1)},
            {"enabled": True},
        ]
        others = [
            UserNotificationChannel.objects.create(user=get_user_model().objects.create_user(f"u{number}"), **state)
            for number, state in enumerate(states_of_others)
        ]
        for number, owner in enumerate([channel, *others]):
            for copy in range(2):
                stored(owner, f"{number}:{copy}")
        held = NotificationRecord.objects.exclude(user=others[3].user)
        held.update(hold_reason=HoldReason.ENDPOINT_FAILING, next_attempt_at=NOW + timedelta(hours=1))

        held_records.release_and_probe_channels(self.OPTIONS, clock)

        released = NotificationRecord.objects.filter(next_attempt_at__lt=NOW + timedelta(minutes=1))
        healthy = {channel.user_id, others[0].user_id, others[3].user_id}
        assert set(released.values_list("user_id", flat=True)) == healthy
        assert released.count() == 6

    def test_release_does_not_end_while_a_record_is_held(
        self, clock: Clock, channel: UserNotificationChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored(channel, "late")
        UserNotificationChannel.objects.update(failures=5, probe_at=NOW + timedelta(seconds=30))
        rows = claim(1, channels=["feishu"], options=self.OPTIONS, clock=clock)
        take_turn = held_records._take_turn

        def hold_meanwhile(*args: Any) -> bool:
            taken = take_turn(*args)
            monkeypatch.setattr(held_records, "_take_turn", take_turn)
            admit_healthy(rows, self.OPTIONS, clock)
            return taken

        monkeypatch.setattr(held_records, "_take_turn", hold_meanwhile)
        monkeypatch.setattr(
            held_records,
            "_RELEASE_HELD_RECORDS",
            "UPDATE notification_records SET id = id WHERE FALSE RETURNING id, TRUE",
        )
        circuit_breaker.resume_channel(channel.pk, self.OPTIONS, clock)

        channel.refresh_from_db()
        assert channel.release_at is not None
