"""Due jobs and triggers: each job is published once, despite failures of the broker or the database."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import Reject
from django.db import OperationalError, connection
from django.utils import timezone

from notifications import tasks
from notifications.api import request_triggered, schedule_job
from notifications.ingest.triggers import Trigger
from notifications.ingest.validation import InvalidNotification
from notifications.maintenance.job_scheduler import claim_jobs, run_due_jobs
from notifications.maintenance.pruner import PurgeCounts, purge
from notifications.management.commands.deliver_due import handle_trigger
from notifications.models import DueJob, NotificationRecord, RejectedRequest
from tests.support.broker_queues import purge_queue
from tests.support.payloads import trigger

pytestmark = pytest.mark.django_db(transaction=True)
TRIGGERED = "active_schedule.triggered"


@pytest.fixture(autouse=True)
def _empty_queues() -> None:
    purge_queue("deliver")
    purge_queue("notifications")


def schedule(key: str = "job", *, ago: float = 1, **changes: Any) -> int:
    return schedule_job(TRIGGERED, trigger(**changes), timezone.now() - timedelta(seconds=ago), key).job_id


def compose_two(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Compose two notifications."""
    for name in ("a", "b"):
        yield {
            "user_id": trigger.user_id,
            "preview_id": name,
            "dedupe_key": f"{trigger.dedupe_key}:{name}",
            "target_url": f"/{name}",
            "requested_at": trigger.requested_at.isoformat(),
        }


def fail_to_compose(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Raise an error whose text must not be stored."""
    raise ValueError("canary")


def compose_one_valid_one_invalid(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Compose a valid notification and one that is rejected."""
    first, second = compose_two(trigger)
    return [first, second | {"target_url": "//elsewhere.example"}]


class TestTriggers:
    def test_duplicate_trigger_creates_one_notification(self) -> None:
        tasks.handle_triggered.run(trigger())
        tasks.handle_triggered.run(trigger(trigger_id="another", target_id=10))

        record = NotificationRecord.objects.get()
        assert (record.user_id, record.trigger_id, record.target_url) == (42, "trg-1", "/tasks/9")
        assert record.dedupe_key == "42:important_urgent_task:987567"

    def test_rejected_trigger_is_stored_with_every_invalid_field(self) -> None:
        tasks.handle_triggered.run(trigger(source="api_dry_run", target_id=0))

        rejected = RejectedRequest.objects.get()
        assert rejected.source == TRIGGERED
        assert {error["field"] for error in rejected.errors} == {"source", "target_id"}

    def test_trigger_with_a_second_argument_is_rejected(self) -> None:
        tasks.handle_triggered.run(trigger(), "more")

        assert RejectedRequest.objects.count() == 1

    def test_message_is_requeued_while_the_database_is_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def raise_error(payload: object) -> None:
            raise OperationalError

        monkeypatch.setattr(tasks, "REQUEUE_DELAY_SECONDS", 0)
        monkeypatch.setattr(tasks, "request_triggered", raise_error)

        with pytest.raises(Reject) as rejected:
            tasks.handle_triggered.run(trigger())
        assert rejected.value.requeue  # type: ignore[attr-defined]

    def test_configured_composer_creates_the_notifications(self, change: Callable[..., None]) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.compose_two")

        request_triggered(trigger())

        assert set(NotificationRecord.objects.values_list("preview_id", flat=True)) == {"a", "b"}

    def test_one_invalid_notification_of_a_composer_rejects_all(self, change: Callable[..., None]) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.compose_one_valid_one_invalid")

        with pytest.raises(InvalidNotification, match="target_url"):
            request_triggered(trigger())
        assert not NotificationRecord.objects.exists()

    def test_trigger_of_a_failing_composer_is_stored_without_the_error_text(self, change: Callable[..., None]) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.fail_to_compose")

        tasks.handle_triggered.run(trigger())

        rejected = RejectedRequest.objects.get()
        assert rejected.errors == [{"field": "payload", "reason": "the composer failed: ValueError"}]


class TestScheduling:
    def test_second_job_with_the_same_key_changes_nothing(self) -> None:
        now = timezone.now()

        first = schedule_job(TRIGGERED, trigger(), now, "job")
        duplicate = schedule_job(TRIGGERED, trigger(target_id=10), now, "job")

        assert (first.job_id, first.reused, duplicate.reused) == (duplicate.job_id, False, True)
        assert DueJob.objects.get().payload["target_id"] == 9

    def test_requested_at_defaults_to_run_at(self) -> None:
        payload = trigger()
        del payload["requested_at"]
        run_at = timezone.now()

        schedule_job(TRIGGERED, payload, run_at, "job")

        assert datetime.fromisoformat(DueJob.objects.get().payload["requested_at"]) == run_at

    def test_invalid_job_is_rejected_with_field_names(self) -> None:
        naive = datetime(2026, 5, 1)  # noqa: DTZ001
        with pytest.raises(InvalidNotification) as refused:
            schedule_job("no.such.event", trigger(), naive, " ")
        assert {name for name, _reason in refused.value.errors} == {"event", "run_at", "key"}
        with pytest.raises(InvalidNotification, match="payload"):
            schedule_job(TRIGGERED, ["no", "fields"], timezone.now(), "job")
        with pytest.raises(InvalidNotification, match="source"):
            schedule_job(TRIGGERED, trigger(source="x"), timezone.now(), "job")
        assert not DueJob.objects.exists()


class TestScanner:
    def test_only_due_jobs_are_published(self) -> None:
        schedule()
        schedule("later", ago=-3600)

        tasks.publish_due_jobs.run()
        tasks.publish_due_jobs.run()

        assert purge_queue("notifications") == 1
        assert list(DueJob.objects.filter(done_at__isnull=False).values_list("key", flat=True)) == ["job"]

    def test_concurrent_scanners_publish_each_job_once(self) -> None:
        for number in range(40):
            schedule(f"job{number}")
        published: list[str] = []
        barrier = threading.Barrier(2)

        def scan() -> None:
            barrier.wait(30)
            try:
                run_due_jobs(lambda event, payload: published.append(event))
            finally:
                connection.close()

        threads = [threading.Thread(target=scan) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert len(published) == 40
        assert not DueJob.objects.filter(done_at__isnull=True).exists()

    def test_claimed_job_is_not_claimed_again_before_its_lease_ends(self) -> None:
        schedule()

        assert len(claim_jobs(str(uuid.uuid4()))) == 1
        assert run_due_jobs(lambda event, payload: None) == 0
        DueJob.objects.update(next_run_at=timezone.now() - timedelta(seconds=1))
        assert run_due_jobs(lambda event, payload: None) == 1

    def test_jobs_are_retried_with_backoff_while_the_broker_is_unavailable(self) -> None:
        def raise_error(event: str, payload: object) -> None:
            raise ConnectionResetError("redis://secret@host")

        for number in range(5):
            schedule(f"job{number}")

        assert run_due_jobs(raise_error) == 0

        first, _second, _third, *untried = DueJob.objects.order_by("pk")
        assert (first.done_at, first.lease_token, first.last_error) == (None, None, "ConnectionResetError")
        assert first.next_run_at is not None
        assert first.next_run_at > timezone.now()
        assert [(job.done_at, job.lease_token, job.attempts) for job in untried] == [(None, None, 0)] * 2
        DueJob.objects.update(next_run_at=timezone.now() - timedelta(seconds=1))
        assert run_due_jobs(lambda event, payload: None) == 5

    @pytest.mark.parametrize("error", [ValueError, OperationalError])
    def test_failing_job_delays_no_other_job_of_the_batch(self, error: type[Exception]) -> None:
        first, *_others = [schedule(f"job{number}", trigger_id=f"trg-{number}") for number in range(3)]
        published: list[str] = []

        def publish(event: str, payload: dict[str, Any]) -> None:
            if payload["trigger_id"] == "trg-0":
                raise error
            published.append(payload["trigger_id"])

        assert run_due_jobs(publish) == 2
        assert sorted(published) == ["trg-1", "trg-2"]
        assert DueJob.objects.get(done_at__isnull=True).pk == first

    def test_deliver_due_runs_jobs_without_a_worker_and_stores_rejected_triggers(
        self, change: Callable[..., None]
    ) -> None:
        schedule("good")
        handle_trigger(TRIGGERED, trigger(source="api_dry_run"))

        assert run_due_jobs(handle_trigger) == 1
        assert NotificationRecord.objects.get().trigger_id == "trg-1"
        assert RejectedRequest.objects.get().source == TRIGGERED

    def test_purge_deletes_only_jobs_that_ended_before_the_cutoff(self) -> None:
        schedule("done")
        run_due_jobs(lambda event, payload: None)
        schedule("waiting")

        assert purge(timezone.now() + timedelta(days=1)) == PurgeCounts(jobs=1)
        assert DueJob.objects.get().key == "waiting"
