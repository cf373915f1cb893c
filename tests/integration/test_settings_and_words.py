"""Words, columns and queues that are written in more than one place agree."""

from __future__ import annotations

import itertools
import shlex
import uuid
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, models, transaction
from django.utils import timezone
from honcho.environ import parse_procfile

from notifications import tasks
from notifications.broker import nudge
from notifications.ingest.payload import IDENTIFIER_LENGTHS, TEXT_LENGTHS
from notifications.models import DeliveryAttempt, NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.states import CLAIMABLE, FINAL, SCHEDULED, AuthType, Cause, ErrorCode, Outcome, Status, TestStatus
from smartmate.celery import app
from tests.support.paths import ROOT


class TestStatuses:
    def test_are_the_go_services_six(self) -> None:
        assert Status.values == ["pending", "sending", "sent", "failed", "dead", "skipped"]

    def test_each_is_either_scheduled_or_final(self) -> None:
        assert {*SCHEDULED, *FINAL} == set(Status)
        assert not set(SCHEDULED) & set(FINAL)
        assert set(CLAIMABLE) == set(SCHEDULED) - {Status.SENDING}

    def test_are_the_choices_of_the_column(self) -> None:
        assert NotificationRecord._meta.get_field("status").choices == Status.choices

    @pytest.mark.django_db
    def test_the_database_accepts_each(self) -> None:
        for status in Status:
            NotificationRecord.objects.create(
                user_id=1,
                dedupe_key=status,
                max_attempts=5,
                status=status,
                next_attempt_at=timezone.now() if status in SCHEDULED else None,
                lease_token=uuid.uuid4() if status == Status.SENDING else None,
            )

        assert set(NotificationRecord.objects.values_list("status", flat=True)) == set(Status)

    @pytest.mark.django_db
    def test_the_database_refuses_any_other(self) -> None:
        for status, due in itertools.product(("", "queued", "SENT", " sent", "retrying", "lost"), (True, False)):
            assert is_refused(status=status, next_attempt_at=timezone.now() if due else None), (status, due)

    @pytest.mark.django_db
    def test_the_database_refuses_a_time_or_lease_that_does_not_fit(self) -> None:
        wrong = [
            *((status, False, status == Status.SENDING) for status in SCHEDULED),
            *((status, True, False) for status in FINAL),
            *((status, status in SCHEDULED, True) for status in Status if status != Status.SENDING),
            (Status.SENDING, True, False),
        ]
        for status, due, leased in wrong:
            fields = {
                "status": status,
                "next_attempt_at": timezone.now() if due else None,
                "lease_token": uuid.uuid4() if leased else None,
            }
            assert is_refused(**fields), (status, due, leased)


def is_refused(**fields: Any) -> bool:
    """Return whether the database refuses a record with these fields."""
    try:
        with transaction.atomic():
            NotificationRecord.objects.create(user_id=1, dedupe_key=uuid.uuid4().hex, max_attempts=5, **fields)
    except IntegrityError:
        return True
    return False


class TestOtherWords:
    @pytest.mark.parametrize(
        ("model", "name", "words"),
        [
            (DeliveryAttempt, "cause", Cause),
            (DeliveryAttempt, "outcome", Outcome),
            (UserNotificationChannel, "auth_type", AuthType),
            (UserNotificationChannel, "last_test_status", TestStatus),
        ],
    )
    def test_are_the_choices_of_their_columns(
        self, model: type[models.Model], name: str, words: type[models.TextChoices]
    ) -> None:
        column: Any = model._meta.get_field(name)

        assert column.choices == words.choices

    @pytest.mark.django_db
    @pytest.mark.parametrize(("name", "word"), [("cause", "cron"), ("outcome", "odd")])
    def test_the_database_refuses_an_unknown_cause_or_outcome(self, name: str, word: str) -> None:
        record = NotificationRecord.objects.create(user_id=1, dedupe_key="k", max_attempts=5)
        fields = {"cause": Cause.EVENT, "outcome": Outcome.SUCCESS} | {name: word}

        with pytest.raises(IntegrityError), transaction.atomic():
            DeliveryAttempt.objects.create(record=record, number=1, started_at=timezone.now(), **fields)

    def test_fit_their_columns(self) -> None:
        words: list[str] = [*Status, *Outcome, *Cause, *AuthType, *TestStatus]

        assert [word for word in words if len(word) > 16] == []
        assert [code for code in ErrorCode if len(code) > 64] == []

    def test_tables_keep_their_names(self) -> None:
        tables = {model._meta.db_table for model in (NotificationRecord, UserNotificationChannel)}

        assert tables == {"notification_records", "user_notification_channels"}
        assert RejectedRequest._meta.db_table == "notification_rejected_requests"


class TestColumns:
    def test_are_as_wide_as_the_longest_accepted_value(self) -> None:
        columns: Any = {name: NotificationRecord._meta.get_field(name) for name in IDENTIFIER_LENGTHS}

        assert {name: column.max_length for name, column in columns.items()} == IDENTIFIER_LENGTHS

    def test_texts_have_no_width(self) -> None:
        assert {type(NotificationRecord._meta.get_field(name)) for name in TEXT_LENGTHS} == {models.TextField}

    @pytest.mark.django_db
    def test_the_database_agrees_with_the_model(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT column_name, character_maximum_length FROM information_schema.columns"
                " WHERE table_name = 'notification_records' AND column_name = ANY(%s)",
                [list(IDENTIFIER_LENGTHS)],
            )
            assert dict(cursor.fetchall()) == IDENTIFIER_LENGTHS


class TestQueues:
    def consumed(self) -> set[str]:
        """Return the queues the Procfile's worker takes messages from."""
        words = shlex.split(parse_procfile((ROOT / "Procfile").read_text()).processes["worker"])
        return set(words[words.index("--queues") + 1].split(","))

    def test_the_worker_consumes_exactly_the_declared_ones(self) -> None:
        assert self.consumed() == set(settings.CELERY_TASK_QUEUES)

    def test_no_setting_promises_a_cold_shutdown_that_the_pool_does_not_have(self) -> None:
        assert "--pool threads" in parse_procfile((ROOT / "Procfile").read_text()).processes["worker"]
        assert not hasattr(settings, "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT")

    def test_every_task_goes_to_a_queue_that_is_consumed(self) -> None:
        ours = {name for name in app.tasks if not name.startswith("celery.")}
        routed = {name: app.amqp.router.route({}, name)["queue"].name for name in ours}

        assert ours >= {nudge.TASK, tasks.FEISHU_REQUESTED}
        assert set(routed.values()) <= self.consumed()
        assert routed[nudge.TASK] == "deliver"
        assert routed[tasks.FEISHU_REQUESTED] == settings.CELERY_TASK_DEFAULT_QUEUE

    def test_beat_sends_known_tasks_to_queues_that_are_consumed(self) -> None:
        assert settings.CELERY_BEAT_SCHEDULE
        for entry in settings.CELERY_BEAT_SCHEDULE.values():
            assert entry["task"] in app.tasks
            assert app.amqp.router.route(entry["options"], entry["task"])["queue"].name in self.consumed()

    def test_tasks_keep_their_names(self) -> None:
        assert tasks.handle_feishu_requested.name == "notification.feishu.requested"
        assert tasks.deliver_due.name == "notifications.deliver_due" == nudge.TASK
