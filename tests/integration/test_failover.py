"""After a failover of PostgreSQL to a standby that lagged: what was lost, and what must not be confused."""

from __future__ import annotations

import pytest
from django.db import connection

from notifications.api import request_notification
from notifications.delivery.claim import claim
from notifications.delivery.engine import Engine
from notifications.delivery.settle import settle_batch
from notifications.delivery.settlement import build_settlement
from notifications.models import DeliveryAttempt, NotificationRecord
from notifications.providers.base import stable_id
from notifications.providers.memory import MemoryProvider
from notifications.states import Status
from tests.support.delivery import OK, Clock, make_due_record, make_engine, options_with
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db


class TestFailover:
    """After a failover to a standby that lagged, PostgreSQL hands out the ids of lost records again."""

    @staticmethod
    def lose_record(record_id: int) -> None:
        NotificationRecord.objects.filter(pk=record_id).delete()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence('notification_records', 'id'), %s, false)", [record_id]
            )

    def test_late_success_does_not_settle_another_message_with_the_same_id(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        lost_id = request_notification(payload(dedupe_key="lost")).record_id
        [lost] = claim(1, channels=["feishu"], options=options_with(), clock=None)
        self.lose_record(lost_id)
        other_id = request_notification(payload(dedupe_key="other")).record_id

        settled = settle_batch([build_settlement(lost, OK, options_with(), duration=1, age=1)], None)

        record = NotificationRecord.objects.get(pk=other_id)
        assert (other_id, settled) == (lost_id, set())
        assert (record.status, record.attempt_count, DeliveryAttempt.objects.count()) == (Status.PENDING, 0, 0)
        assert Engine(providers={"feishu": memory}).deliver_due().sent == 1

    def test_receivers_see_another_id_for_the_other_message(self, memory: MemoryProvider) -> None:
        ids = []
        for key in ("lost", "other"):
            record_id = request_notification(payload(dedupe_key=key)).record_id
            Engine(providers={"feishu": memory}).deliver_due()
            ids.append((record_id, stable_id(memory.requests[-1], options_with())))
            self.lose_record(record_id)

        (first_number, first_id), (second_number, second_id) = ids
        assert first_number == second_number
        assert first_id != second_id

    def test_result_of_a_record_of_an_earlier_version_settles_it(self, memory: MemoryProvider, clock: Clock) -> None:
        record = make_due_record()

        make_engine(memory, clock).deliver_due()

        record.refresh_from_db()
        assert (record.message_uid, record.status, DeliveryAttempt.objects.count()) == (None, Status.SENT, 1)
