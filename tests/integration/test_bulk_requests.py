"""Bulk requests at the same time: none waits for another in a circle."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from notifications.api import request_notifications
from notifications.ingest.insert import INSERT_BATCH_ROWS
from notifications.models import NotificationRecord
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = [f"key-{number:05}" for number in range(2 * INSERT_BATCH_ROWS)]


def test_bulk_requests_of_the_same_keys_in_opposite_order_do_not_deadlock() -> None:
    both_started = threading.Barrier(2)
    reused: dict[int, int] = {}
    errors: list[Exception] = []

    def request(number: int, keys: list[str]) -> None:
        both_started.wait(30)
        try:
            with transaction.atomic():
                accepted = request_notifications([payload(dedupe_key=key) for key in keys])
            reused[number] = sum(result.reused for result in accepted)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=request, args=arguments) for arguments in enumerate((KEYS, KEYS[::-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert sorted(reused.values()) == [0, len(KEYS)]
    assert NotificationRecord.objects.count() == len(KEYS)


def test_results_are_in_the_order_of_the_payloads() -> None:
    keys = KEYS[::-1]

    accepted = request_notifications([payload(dedupe_key=key) for key in keys])

    by_id = dict(NotificationRecord.objects.values_list("id", "dedupe_key"))
    assert [by_id[result.record_id] for result in accepted] == keys
