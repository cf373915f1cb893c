"""Management commands: delivery, replay, test messages and purge without Celery or Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone, translation

from notifications.delivery import queue_start
from notifications.delivery.engine import Engine, RetryResult
from notifications.maintenance import pruner
from notifications.maintenance.pruner import retention_cutoff
from notifications.management.commands import deliver_due, purge_notifications, replay_notifications
from notifications.management.commands._base import StopSignal, stop_on_signals
from notifications.models import DueJob, NotificationRecord, RejectedRequest, ReplayOperation, UserNotificationChannel
from notifications.providers import get_provider
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.replay import operations as replays
from notifications.replay.criteria import Criteria
from notifications.replay.operations import cancel_operation, create_operation
from notifications.states import UNDELIVERED, Outcome
from tests.support.factories import make_attempt, make_record
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

MEMORY = {"feishu": "notifications.providers.memory.MemoryProvider"}
PERMANENT_FAILURE = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="provider_config", error_message="code 19001")
TEMPORARY_FAILURE = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_timeout")
OVERDUE = timedelta(minutes=1)


@pytest.fixture
def provider(change: Callable[..., None]) -> MemoryProvider:
    change(PROVIDERS=MEMORY)
    configured = get_provider("feishu")
    assert isinstance(configured, MemoryProvider)
    return configured


@pytest.fixture(autouse=True)
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []
    monkeypatch.setattr("notifications.broker.nudge.nudge", lambda: calls.append(None))
    monkeypatch.setattr(replays, "nudge_replays", lambda: True)
    return calls


def make_due(**fields: Any) -> NotificationRecord:
    return make_record("pending", next_attempt_at=timezone.now() - OVERDUE, **fields)


def run(name: str, *args: str, **options: Any) -> str:
    """Return what the command wrote to stdout."""
    out = StringIO()
    call_command(name, *args, stdout=out, **options)
    return out.getvalue()


def statuses() -> list[str]:
    return list(NotificationRecord.objects.order_by("pk").values_list("status", flat=True))


class TestDeliverDueOnce:
    def test_due_records_are_delivered_and_outcomes_are_printed(self, provider: MemoryProvider) -> None:
        for _ in range(3):
            make_due()
        make_record("pending")
        provider.script(PERMANENT_FAILURE, TEMPORARY_FAILURE)

        output = run("deliver_due")

        assert sorted(statuses()) == ["dead", "failed", "pending", "sent"]
        for text in ("3 attempts were made.", "sent: 1", "dead, action needed: 1", "waiting to retry: 1"):
            assert text in output

    def test_continues_after_the_engine_reaches_its_limit(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Engine.deliver_due

        def deliver_one_record(self: Engine, *, limit: int = 0, **kwargs: Any) -> RetryResult:
            return real(self, limit=1, **kwargs)

        monkeypatch.setattr(Engine, "deliver_due", deliver_one_record)
        for _ in range(5):
            make_due()

        output = run("deliver_due")

        assert set(statuses()) == {"sent"}
        assert "5 attempts were made." in output

    def test_limit_bounds_the_number_of_attempts(self, provider: MemoryProvider, change: Callable[..., None]) -> None:
        change(PROVIDERS=MEMORY, SEND_SLOTS=2)
        for _ in range(5):
            make_due()

        run("deliver_due", "--limit", "3")

        assert sorted(statuses()) == ["pending"] * 2 + ["sent"] * 3

    def test_held_records_do_not_count_for_the_limit(
        self, provider: MemoryProvider, change: Callable[..., None], make_user: Callable[..., User]
    ) -> None:
        change(PROVIDERS=MEMORY, SEND_SLOTS=2)
        paused = make_user("paused", "https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh1234")
        UserNotificationChannel.objects.update(paused_at=timezone.now())
        for _ in range(7):
            make_due(user_id=paused.pk)
        for _ in range(5):
            make_due()

        run("deliver_due", "--limit", "3")

        assert sorted(statuses()) == ["pending"] * 9 + ["sent"] * 3

    def test_one_run_waits_for_short_rate_limits(
        self, provider: MemoryProvider, change: Callable[..., None], make_user: Callable[..., User]
    ) -> None:
        # Without Redis a process uses a fifth of the limit: one send in a tenth of a second.
        change(PROVIDERS=MEMORY, REDIS_URL="", RATE_LIMITS={"feishu": "5/second"})
        owner = make_user("owner", "https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh1234")
        for _ in range(3):
            make_due(user_id=owner.pk)

        output = run("deliver_due")

        assert set(statuses()) == {"sent"}
        assert "3 attempts were made." in output

    def test_one_run_leaves_a_long_rate_limit_to_the_next_one(
        self, provider: MemoryProvider, change: Callable[..., None], make_user: Callable[..., User]
    ) -> None:
        change(PROVIDERS=MEMORY, REDIS_URL="", RATE_LIMITS={"feishu": "1/hour"})
        owner = make_user("owner", "https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh1234")
        for _ in range(2):
            make_due(user_id=owner.pk)

        run("deliver_due")

        assert sorted(statuses()) == ["pending", "sent"]

    def test_one_run_publishes_due_jobs_and_runs_replays(self, provider: MemoryProvider) -> None:
        dead = make_record("dead", attempt_count=5)
        operation = create_operation(Criteria(ids=(dead.pk,)), None, "x")
        now = timezone.now()
        DueJob.objects.create(key="job", event="active_schedule.triggered", payload={}, run_at=now, next_run_at=now)

        run("deliver_due")

        operation.refresh_from_db()
        assert (operation.status, statuses()) == ("done", ["sent"])
        assert RejectedRequest.objects.get().source == "active_schedule.triggered"  # its payload is empty
        assert DueJob.objects.get().done_at is not None

    def test_delivers_without_redis(self, provider: MemoryProvider, change: Callable[..., None]) -> None:
        change(PROVIDERS=MEMORY, REDIS_URL="redis://127.0.0.1:1/0")
        make_due()

        run("deliver_due")

        assert statuses() == ["sent"]

    def test_reports_zero_attempts_when_nothing_is_due(self, provider: MemoryProvider) -> None:
        assert run("deliver_due") == "0 attempts were made.\n"
        assert run("deliver_due", verbosity=0) == ""

    def test_database_failure_raises_command_error_without_the_database_url(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Engine, **kwargs: Any) -> RetryResult:
            raise OperationalError("connection to postgres://user:secret@host failed")

        monkeypatch.setattr(Engine, "deliver_due", fail)

        with pytest.raises(CommandError, match="OperationalError") as error_info:
            run("deliver_due")

        assert "secret" not in str(error_info.value)

    def test_invalid_arguments_are_rejected(self, subtests: pytest.Subtests) -> None:
        cases: list[tuple[str, ...]] = [
            ("--limit", "0"),
            ("--limit", "-1"),
            ("--limit", "many"),
            ("--interval", "0"),
            ("--interval", "nan"),
            ("--interval", "soon"),
            ("--interval", "3601"),
            ("--forever", "--limit", "5"),
        ]
        for args in cases:
            with subtests.test(args=args):
                with pytest.raises(CommandError):
                    run("deliver_due", *args)


@pytest.mark.django_db(transaction=True)  # between two rounds the command may close its connection
class TestDeliverDueForever:
    @pytest.fixture(autouse=True)
    def _every_look_begins_at_the_beginning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise the time that a look takes would decide how long the command waits."""
        monkeypatch.setattr(queue_start, "FULL_LOOK_PART", 1.0)

    def test_signal_stops_the_command_after_sends_in_progress(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def send(request: SendRequest, endpoint: Endpoint | None) -> SendResult:
            os.kill(os.getpid(), signal.SIGTERM)
            return SendResult(outcome=Outcome.SUCCESS)

        monkeypatch.setattr(provider, "send", send)
        make_due()

        output = run("deliver_due", "--forever")

        assert statuses() == ["sent"]
        assert "1 attempt was made." in output

    def test_waits_for_the_interval_when_nothing_is_due(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []

        def wait(self: StopSignal, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 1:
                make_due()
            else:
                self.request()

        monkeypatch.setattr(StopSignal, "wait", wait)

        run("deliver_due", "--forever", "--interval", "3.5")

        assert statuses() == ["sent"]
        assert waits == [3.5, 3.5]

    def test_continues_after_a_database_failure(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        real = Engine.deliver_due
        waits: list[float] = []

        def fail_once(self: Engine, **kwargs: Any) -> RetryResult:
            if not waits:
                raise OperationalError("postgres://user:secret@host")
            return real(self, **kwargs)

        def wait(self: StopSignal, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                self.request()

        monkeypatch.setattr(Engine, "deliver_due", fail_once)
        monkeypatch.setattr(StopSignal, "wait", wait)
        make_due()

        run("deliver_due", "--forever")

        assert statuses() == ["sent"]
        assert waits == [deliver_due.DATABASE_RETRY_SECONDS, deliver_due.IDLE_INTERVAL_SECONDS]
        assert "database failed: OperationalError" in caplog.text
        assert "secret" not in caplog.text

    def test_forever_runs_replay_operations(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, make_user: Callable[..., User]
    ) -> None:
        make_record(user_id=make_user("reader", "https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh").pk)
        create_operation(Criteria(), None, "mended")
        monkeypatch.setattr(StopSignal, "wait", lambda self, seconds: self.request())

        run("deliver_due", "--forever")

        assert statuses() == ["sent"]

    def test_signal_ends_the_wait_and_handlers_are_restored(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        started = time.monotonic()

        with stop_on_signals() as stop:
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
            stop.wait(60)

        assert stop.requested()
        assert time.monotonic() - started < 30
        assert signal.getsignal(signal.SIGTERM) is before

    def test_stop_signal_works_in_a_thread_without_signal_handlers(self) -> None:
        stop_requests: list[bool] = []

        def wait_for_stop() -> None:
            with stop_on_signals() as stop:
                stop.request()
                stop.wait(60)
                stop_requests.append(stop.requested())

        thread = threading.Thread(target=wait_for_stop)
        thread.start()
        thread.join(10)

        assert stop_requests == [True]

    @pytest.mark.processes
    def test_process_exits_with_code_zero(self) -> None:
        url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
        command = [sys.executable, "manage.py", "deliver_due", "--forever", "--interval", "600"]
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr
            try:
                assert any("delivering until a stop signal" in line for line in iter(process.stderr.readline, ""))
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
            finally:
                process.kill()

        assert process.returncode == 0


class TestReplay:
    def test_only_selected_records_are_replayed(self, nudges: list[None]) -> None:
        chosen, other = make_record(), make_record()

        output = run("replay_notifications", "--id", str(chosen.pk), "--reason", "endpoint mended")

        assert statuses() == ["pending", "dead"]
        assert output == "1 was replayed. 0 were not changed.\n"
        other.refresh_from_db()
        assert other.round == 0

    def test_each_option_filters_records(self, subtests: pytest.Subtests) -> None:
        cases: list[tuple[str, str]] = [
            ("--status", "dead"),
            ("--code", "provider_timeout"),
            ("--since", "2026-05-01T08:00:00+08:00"),
            ("--until", "2026-05-01T02:00:00Z"),
            ("--channel", "other"),
            ("--user", "7"),
            ("--key", "this"),
            ("--trace", "this"),
            ("--preview", "this"),
            ("--changed-since", "2026-05-01T08:00:00+08:00"),
            ("--changed-until", "2026-05-01T02:00:00Z"),
        ]
        for args in cases:
            with subtests.test(args=args):
                NotificationRecord.objects.all().delete()
                noon = datetime.fromisoformat("2026-05-01T01:00:00+00:00")
                fields: dict[str, Any] = {"channel": "other", "user_id": 7, "dedupe_key": "this", "trace_id": "this"}
                fields |= {
                    "preview_id": "this",
                    "last_error_code": "provider_timeout",
                    "created_at": noon,
                    "updated_at": noon,
                }
                matching = make_record(**fields)
                outside = noon - timedelta(days=1) if args[0].endswith("since") else noon + timedelta(days=1)
                other = make_record(
                    "skipped", last_error_code="recipient_missing", created_at=outside, updated_at=outside
                )

                run("replay_notifications", *args, "--reason", "x")

                matching.refresh_from_db()
                other.refresh_from_db()
                assert (matching.status, other.status) == ("pending", "skipped")

    def test_options_are_combined_with_and_and_ids_with_or(self) -> None:
        a, b, c = make_record(), make_record(last_error_code="provider_timeout"), make_record()

        run("replay_notifications", "--id", str(a.pk), "--id", str(b.pk), "--code", "provider_config", "--reason", "x")

        assert statuses() == ["pending", "dead", c.status]

    def test_sent_records_require_force(self) -> None:
        make_record("sent")

        options = ("--status", "sent", "--since", "2026-05-01T08:00:00+08:00", "--reason", "x")

        with pytest.raises(CommandError, match=r"--status: .*force"):
            run("replay_notifications", *options)
        assert "1 was replayed." in run("replay_notifications", *options, "--force")

    def test_force_without_a_narrow_filter_is_rejected(self) -> None:
        make_record("sent")

        with pytest.raises(CommandError, match=r"--force: .*select also"):
            run("replay_notifications", "--channel", "feishu", "--reason", "x", "--force")

        assert statuses() == ["sent"]

    def test_dry_run_counts_and_changes_nothing(self) -> None:
        make_record()
        make_record("sent")
        make_record("skipped", last_error_code="cancelled")

        output = run("replay_notifications", "--channel", "feishu", "--dry-run")

        assert statuses() == ["dead", "sent", "skipped"]
        assert not ReplayOperation.objects.exists()
        assert "1 would be replayed." in output
        assert "dead, action needed, provider_config, feishu: 1, changed from 2" in output
        options = ("--channel", "feishu", "--since", "2026-05-01T08:00:00+08:00", "--force")
        assert "3 would be replayed." in run("replay_notifications", *options, "--dry-run")

    def test_no_wait_leaves_the_operation_to_the_workers(self) -> None:
        make_record()

        output = run("replay_notifications", "--status", "dead", "--reason", "x", "--rate", "60", "--no-wait")

        operation = ReplayOperation.objects.get()
        assert output == f"1 will be replayed. Replay operation {operation.pk}.\n"
        assert (operation.status, operation.rate, statuses()) == ("queued", 60, ["dead"])

    def test_signal_leaves_the_remaining_records_to_the_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_record()

        def stop(*args: object, **kwargs: object) -> None:
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(replay_notifications, "run_due_batches", stop)

        output = run("replay_notifications", "--status", "dead", "--reason", "x")

        assert output == "0 were replayed. The workers continue with the rest.\n"

    def test_operation_cancelled_during_the_wait_raises_command_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_record()
        monkeypatch.setattr(
            replay_notifications, "run_due_batches", lambda *args, only, **kwargs: cancel_operation(only, None)
        )

        with pytest.raises(CommandError, match=r"0 were replayed. .*cancelled"):
            run("replay_notifications", "--status", "dead", "--reason", "x")

    def test_actor_and_reason_are_logged(self, make_user: Callable[..., User]) -> None:
        operator = make_user("operator")
        record = make_record()

        run("replay_notifications", "--id", str(record.pk), "--reason", "endpoint mended", "--actor", "operator")

        entry = LogEntry.objects.get(content_type__model="notificationrecord")
        assert (entry.user, entry.object_id, entry.change_message) == (
            operator,
            str(record.pk),
            "Replayed: endpoint mended",
        )

    def test_replay_nudges_the_workers(self, nudges: list[None], django_capture_on_commit_callbacks: Any) -> None:
        make_record()

        with django_capture_on_commit_callbacks(execute=True):
            run("replay_notifications", "--status", "dead", "--reason", "x")
            run("replay_notifications", "--status", "dead", "--reason", "x")

        assert len(nudges) == 1

    def test_progress_is_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("notifications.replay.runner.MAX_BATCH_RECORDS", 2)
        monkeypatch.setattr("notifications.management.commands.replay_notifications.WAIT_STEP_SECONDS", 0.0)
        for _ in range(5):
            make_record()

        output = run("replay_notifications", "--status", "dead", "--reason", "x")

        for text in ("2 of 5 processed", "4 of 5 processed", "5 were replayed. 0 were not changed."):
            assert text in output

    def test_invalid_options_are_rejected_and_nothing_changes(self, subtests: pytest.Subtests) -> None:
        make_record()

        cases: list[tuple[tuple[str, ...], str]] = [
            (("--reason", "x"), "--id, --status"),
            (("--force", "--reason", "x"), "--id, --status"),
            (("--status", "dead"), "--reason"),
            (("--status", "dead", "--reason", "  "), "--reason"),
            (("--status", "gone", "--reason", "x"), "gone"),
            (("--id", "seven", "--reason", "x"), "seven"),
            (("--since", "2026-05-01T08:00:00", "--reason", "x"), "zone"),
            (("--until", "yesterday", "--reason", "x"), "zone"),
            (("--status", "dead", "--reason", "x", "--rate", "0"), "rate"),
            (("--status", "dead", "--reason", "x", "--rate", "60001"), "--rate: .*60000"),
            (("--key", "x" * 192, "--reason", "x"), "--key: .*191"),
            (("--status", "dead", "--reason", "x", "--actor", "nobody"), "nobody"),
        ]
        for args, message in cases:
            with subtests.test(args=args, message=message):
                with pytest.raises(CommandError, match=message):
                    run("replay_notifications", *args)

                assert statuses() == ["dead"]


class TestSendTest:
    @pytest.fixture
    def channel(self, make_user: Callable[..., User], provider: MemoryProvider) -> UserNotificationChannel:
        user = make_user("alice")
        return UserNotificationChannel.objects.create(user=user, webhook_url="https://www.feishu.cn/x")

    def test_message_is_sent_through_the_normal_path_and_result_is_printed(
        self, channel: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        output = run("send_test_notification", "alice", "--text", "你好")

        record = NotificationRecord.objects.get()
        assert f"Delivered (record {record.pk})." in output
        assert (record.status, record.user_id, record.trigger_type) == ("sent", channel.user_id, "test")
        assert record.dedupe_key.startswith(f"test:{channel.user_id}:")
        assert [request.message_text for request in provider.requests] == ["你好\n/"]
        channel.refresh_from_db()
        assert (channel.last_test_status, channel.last_test_error) == ("success", "")
        assert channel.last_test_at is not None

    def test_channel_option_selects_the_tested_channel(
        self, channel: UserNotificationChannel, provider: MemoryProvider, change: Callable[..., None]
    ) -> None:
        memory = "notifications.providers.memory.MemoryProvider"
        change(PROVIDERS={"feishu": memory, "email": memory})
        other = UserNotificationChannel.objects.create(user=channel.user, channel="email")

        run("send_test_notification", "alice", "--channel", "email")

        channel.refresh_from_db()
        other.refresh_from_db()
        assert NotificationRecord.objects.get().channel == "email"
        assert (channel.last_test_status, other.last_test_status) == ("", "success")

    def test_each_call_sends_a_new_message(self, channel: UserNotificationChannel, provider: MemoryProvider) -> None:
        run("send_test_notification", "alice")
        run("send_test_notification", str(channel.user_id))

        assert len(provider.requests) == 2
        assert "test message" in provider.requests[0].message_text

    @pytest.mark.parametrize("result", [PERMANENT_FAILURE, TEMPORARY_FAILURE])
    def test_failure_is_reported_stored_and_not_retried(
        self, channel: UserNotificationChannel, provider: MemoryProvider, result: SendResult
    ) -> None:
        provider.script(result)

        with pytest.raises(CommandError, match=result.error_code):
            run("send_test_notification", "alice")

        channel.refresh_from_db()
        assert channel.last_test_status == "failed"
        assert channel.last_test_error.startswith(result.error_code)
        assert statuses() == ["dead"]

    def test_user_without_a_channel_gets_a_skipped_record(
        self, make_user: Callable[..., User], change: Callable[..., None]
    ) -> None:
        make_user("bob")

        with pytest.raises(CommandError, match="no Feishu channel"):
            run("send_test_notification", "bob")

        assert statuses() == ["skipped"]

    def test_text_with_a_link_is_replaced_with_a_warning(
        self, channel: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        output = run("send_test_notification", "alice", "--text", "see https://evil.example")

        assert "must not contain links to other sites" in output
        assert "evil" not in provider.requests[0].message_text

    def test_numeric_argument_matches_a_username_before_an_id(
        self, channel: UserNotificationChannel, provider: MemoryProvider, make_user: Callable[..., User]
    ) -> None:
        namesake = make_user(str(channel.user_id))

        run("send_test_notification", str(channel.user_id))

        assert provider.requests[0].user_id == namesake.pk

    def test_unknown_user_is_rejected(self, subtests: pytest.Subtests) -> None:
        cases: list[str] = ["nobody", "999999999", "9" * 40, "٤٢", ""]
        for user in cases:
            with subtests.test(user=user):
                with pytest.raises(CommandError, match="no user"):
                    run("send_test_notification", user)

    def test_text_that_cannot_be_stored_is_rejected(self, channel: UserNotificationChannel) -> None:
        with pytest.raises(CommandError, match="summary_text"):
            run("send_test_notification", "alice", "--text", "a\x00b")

        assert not NotificationRecord.objects.exists()


class TestPurge:
    @pytest.fixture
    def old_rows(self) -> datetime:
        """Create a dead, a sent and a pending record and a rejected request, all 31 days old; return their time."""
        old_rows = retention_cutoff(31)
        for status in ("dead", "sent", "pending"):
            make_attempt(make_record(status, created_at=old_rows, updated_at=old_rows))
        RejectedRequest.objects.create(source="test", payload="{}", errors=[], created_at=old_rows)
        return old_rows

    def test_rows_older_than_retention_days_are_deleted_and_counts_printed(
        self, old_rows: datetime, change: Callable[..., None]
    ) -> None:
        change(RETENTION_DAYS=30)
        make_record("sent")

        output = run("purge_notifications")

        assert statuses() == ["pending", "sent"]
        assert output == (
            "2 notifications were deleted.\n  of these, dead: 1\n  their attempts: 2\n  rejected requests: 1\n"
            "  finished jobs: 0\n"
            "  signals that were not sent: 0\n"
        )

    def test_days_option_overrides_the_setting(self, old_rows: datetime, change: Callable[..., None]) -> None:
        change(RETENTION_DAYS=30)

        assert "0 notifications were deleted." in run("purge_notifications", "--days", "32")
        assert len(statuses()) == 3

    def test_dry_run_counts_and_deletes_nothing(self, old_rows: datetime) -> None:
        output = run("purge_notifications", "--days", "30", "--dry-run")

        assert (statuses(), RejectedRequest.objects.count()) == (["dead", "sent", "pending"], 1)
        assert output == (
            "2 notifications would be deleted.\n"
            "  of these, dead: 1\n"
            "  their attempts: 2\n"
            "  rejected requests: 1\n"
            "  finished jobs: 0\n"
            "  signals that were not sent: 0\n"
        )

    def test_missing_days_are_rejected(self, old_rows: datetime, subtests: pytest.Subtests) -> None:
        cases: list[tuple[str, ...]] = [(), ("--dry-run",)]
        for args in cases:
            with subtests.test(args=args):
                with pytest.raises(CommandError, match="--days"):
                    run("purge_notifications", *args)

                assert len(statuses()) == 3

    def test_invalid_days_are_rejected(self, old_rows: datetime, subtests: pytest.Subtests) -> None:
        cases: list[str] = ["0", "-1", "1.5", "many", ""]
        for days in cases:
            with subtests.test(days=days):
                with pytest.raises(CommandError, match="whole number"):
                    run("purge_notifications", "--days", days)

                assert len(statuses()) == 3

    def test_progress_is_printed(self, old_rows: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pruner, "BATCH_ROWS", 1)
        monkeypatch.setattr(purge_notifications, "PROGRESS_ROWS", 2)
        make_record("sent", created_at=old_rows, updated_at=old_rows)

        output = run("purge_notifications", "--days", "30")

        assert [line for line in output.splitlines() if "so far" in line] == [
            "2 deleted so far",
            "4 deleted so far",
        ]
        assert run("purge_notifications", "--days", "30", verbosity=0) == ""

    def test_signal_stops_the_purge_after_the_batch(self, old_rows: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pruner, "BATCH_ROWS", 1)

        def send_signal(*args: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(purge_notifications.Command, "_progress", send_signal)

        output = run("purge_notifications", "--days", "30")

        assert len(statuses()) == 2
        assert "1 notification was deleted." in output
        assert "Run the command again" in output

    def test_database_failure_raises_command_error_without_the_database_url(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise OperationalError("connection to postgres://user:secret@host failed")

        monkeypatch.setattr(purge_notifications, "purge", fail)

        with pytest.raises(CommandError, match="OperationalError") as error_info:
            run("purge_notifications", "--days", "30")

        assert "secret" not in str(error_info.value)


class TestHelp:
    COMMANDS = ("deliver_due", "purge_notifications", "replay_notifications", "send_test_notification")

    def test_help_documents_the_exit_codes(self, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests) -> None:
        for name in self.COMMANDS:
            with subtests.test(name=name):
                with pytest.raises(SystemExit) as error_info:
                    call_command(name, "--help")

                assert error_info.value.code == 0
                assert "Exit codes: 0" in capsys.readouterr().out

    def test_help_is_translated(self, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests) -> None:
        for name in self.COMMANDS:
            with subtests.test(name=name):
                with translation.override("zh-hans"), pytest.raises(SystemExit):
                    call_command(name, "--help")

                assert "退出码" in capsys.readouterr().out


def test_every_undelivered_status_can_be_selected() -> None:
    for status in UNDELIVERED:
        run("replay_notifications", "--status", status, "--dry-run")
