"""Due jobs: what is scheduled happens, once, whoever dies and whatever is away."""

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
from notifications.management.commands.deliver_due import _handle_trigger
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


def two(found: Trigger) -> Iterable[dict[str, Any]]:
    """Make two notifications."""
    for name in ("a", "b"):
        yield {
            "user_id": found.user_id,
            "preview_id": name,
            "dedupe_key": f"{found.dedupe_key}:{name}",
            "target_url": f"/{name}",
            "requested_at": found.requested_at.isoformat(),
        }


def broken(found: Trigger) -> Iterable[dict[str, Any]]:
    """Fail with what must not be shown."""
    raise ValueError("canary")


def half_wrong(found: Trigger) -> Iterable[dict[str, Any]]:
    """Make a good notification and one that is refused."""
    first, second = two(found)
    return [first, second | {"target_url": "//elsewhere.example"}]


class TestTriggers:
    def test_a_trigger_that_comes_twice_makes_one_notification(self) -> None:
        tasks.handle_triggered.run(trigger())
        tasks.handle_triggered.run(trigger(trigger_id="another", target_id=10))

        record = NotificationRecord.objects.get()
        assert (record.user_id, record.trigger_id, record.target_url) == (42, "trg-1", "/tasks/9")
        assert record.dedupe_key == "42:important_urgent_task:987567"

    def test_a_refused_trigger_is_kept_with_every_wrong_field(self) -> None:
        tasks.handle_triggered.run(trigger(source="api_dry_run", target_id=0))

        rejected = RejectedRequest.objects.get()
        assert rejected.source == TRIGGERED
        assert {error["field"] for error in rejected.errors} == {"source", "target_id"}

    def test_a_second_argument_is_refused(self) -> None:
        tasks.handle_triggered.run(trigger(), "more")

        assert RejectedRequest.objects.count() == 1

    def test_while_the_database_is_away_the_message_goes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(payload: object) -> None:
            raise OperationalError

        monkeypatch.setattr(tasks, "REQUEUE_DELAY_SECONDS", 0)
        monkeypatch.setattr(tasks, "request_triggered", away)

        with pytest.raises(Reject) as rejected:
            tasks.handle_triggered.run(trigger())
        assert rejected.value.requeue  # type: ignore[attr-defined]

    def test_another_composer_makes_what_it_likes(self, change: Callable[..., None]) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.two")

        request_triggered(trigger())

        assert set(NotificationRecord.objects.values_list("preview_id", flat=True)) == {"a", "b"}

    def test_what_a_composer_makes_is_stored_whole_or_not_at_all(self, change: Callable[..., None]) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.half_wrong")

        with pytest.raises(InvalidNotification, match="target_url"):
            request_triggered(trigger())
        assert not NotificationRecord.objects.exists()

    def test_a_composer_that_fails_loses_no_trigger_and_shows_no_text(self, change: Callable[..., None]) -> None:
        change(TRIGGER_COMPOSER=f"{__name__}.broken")

        tasks.handle_triggered.run(trigger())

        rejected = RejectedRequest.objects.get()
        assert rejected.errors == [{"field": "payload", "reason": "the composer failed: ValueError"}]


class TestScheduling:
    def test_a_key_makes_one_job_which_stays_as_it_was(self) -> None:
        now = timezone.now()

        first = schedule_job(TRIGGERED, trigger(), now, "job")
        again = schedule_job(TRIGGERED, trigger(target_id=10), now, "job")

        assert (first.job_id, first.reused, again.reused) == (again.job_id, False, True)
        assert DueJob.objects.get().payload["target_id"] == 9

    def test_the_trigger_is_of_the_time_the_job_is_due(self) -> None:
        payload = trigger()
        del payload["requested_at"]
        run_at = timezone.now()

        schedule_job(TRIGGERED, payload, run_at, "job")

        assert datetime.fromisoformat(DueJob.objects.get().payload["requested_at"]) == run_at

    def test_what_cannot_happen_is_refused_by_name(self) -> None:
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
    def test_what_is_due_is_sent_to_the_workers_and_nothing_else(self) -> None:
        schedule()
        schedule("later", ago=-3600)

        tasks.publish_due_jobs.run()
        tasks.publish_due_jobs.run()

        assert purge_queue("notifications") == 1
        assert list(DueJob.objects.filter(done_at__isnull=False).values_list("key", flat=True)) == ["job"]

    def test_two_scanners_at_once_share_the_jobs(self) -> None:
        for number in range(40):
            schedule(f"job{number}")
        published: list[str] = []
        both = threading.Barrier(2)

        def scan() -> None:
            both.wait(30)
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

    def test_a_claimed_job_is_nobody_elses_until_its_lease_ends(self) -> None:
        schedule()

        assert len(claim_jobs(str(uuid.uuid4()))) == 1
        assert run_due_jobs(lambda event, payload: None) == 0
        DueJob.objects.update(next_run_at=timezone.now() - timedelta(seconds=1))
        assert run_due_jobs(lambda event, payload: None) == 1

    def test_while_the_broker_is_away_jobs_stay_due_with_a_backoff(self) -> None:
        def away(event: str, payload: object) -> None:
            raise ConnectionResetError("redis://secret@host")

        for number in range(5):
            schedule(f"job{number}")

        assert run_due_jobs(away) == 0

        first, _second, _third, *untried = DueJob.objects.order_by("pk")
        assert (first.done_at, first.lease_token, first.last_error) == (None, None, "ConnectionResetError")
        assert first.next_run_at is not None
        assert first.next_run_at > timezone.now()
        assert [(job.done_at, job.lease_token, job.attempts) for job in untried] == [(None, None, 0)] * 2
        DueJob.objects.update(next_run_at=timezone.now() - timedelta(seconds=1))
        assert run_due_jobs(lambda event, payload: None) == 5

    @pytest.mark.parametrize("error", [ValueError, OperationalError])
    def test_job_that_always_fails_delays_no_other_job_of_its_batch(self, error: type[Exception]) -> None:
        first, *_others = [schedule(f"job{number}", trigger_id=f"trg-{number}") for number in range(3)]
        published: list[str] = []

        def broken(event: str, payload: dict[str, Any]) -> None:
            if payload["trigger_id"] == "trg-0":
                raise error
            published.append(payload["trigger_id"])

        assert run_due_jobs(broken) == 2
        assert sorted(published) == ["trg-1", "trg-2"]
        assert DueJob.objects.get(done_at__isnull=True).pk == first

    def test_without_a_worker_deliver_due_lets_them_happen_and_keeps_what_is_refused(
        self, change: Callable[..., None]
    ) -> None:
        schedule("good")
        _handle_trigger(TRIGGERED, trigger(source="api_dry_run"))

        assert run_due_jobs(_handle_trigger) == 1
        assert NotificationRecord.objects.get().trigger_id == "trg-1"
        assert RejectedRequest.objects.get().source == TRIGGERED

    def test_the_purge_takes_jobs_that_are_long_done_and_no_other(self) -> None:
        schedule("done")
        run_due_jobs(lambda event, payload: None)
        schedule("waiting")

        assert purge(timezone.now() + timedelta(days=1)) == PurgeCounts(jobs=1)
        assert DueJob.objects.get().key == "waiting"
