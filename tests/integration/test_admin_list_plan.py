"""The admin's list reads few rows of a large table, whatever is filtered and wherever the records are on disk."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from notifications.models import NotificationRecord
from tests.support.factories import LIST
from tests.support.query_plans import all_nodes, executed_plan, fill_table, pages_read

RECORDS = 50_000
MAX_ROWS_READ = 10_100
"""The count on page 100 reads 10,000. A search for the rare or the old records would read 15,000 at least."""
FEW = 40
MAX_PAGES_READ = 200
"""For a list of few records. Each of them can be on a page of its own."""

NEW_TABLE = "TRUNCATE notification_records CASCADE"
"""Gives the transaction new files, without the dead rows of other tests."""
NUMBER = "UPDATE notification_records SET target_id = substr(dedupe_key, 2)::bigint * %s %% 50000"
"""Stores a different number in each record, 0 for the newest. The factor decides the order on disk."""
SPREAD = """
UPDATE notification_records
SET created_at = now() - target_id * interval '1 second',
    channel = CASE WHEN target_id BETWEEN 34900 AND 34939 THEN 'email' ELSE 'feishu' END,
    status = CASE
        WHEN target_id >= 35000 THEN 'dead' WHEN target_id >= 34980 THEN 'pending' WHEN target_id >= 34960 THEN 'failed'
        WHEN target_id >= 34940 THEN 'skipped' ELSE 'sent'
    END,
    priority = CASE WHEN target_id BETWEEN 34900 AND 34939 THEN 3 ELSE 1 END,
    last_error_code = CASE
        WHEN target_id >= 35000 THEN 'provider_5xx' WHEN target_id BETWEEN 34940 AND 34979 THEN 'rare' ELSE ''
    END,
    next_attempt_at = CASE WHEN target_id BETWEEN 34960 AND 34999 THEN now() END
"""
"""15,000 old records are dead. Just newer are 20 each that are pending, failed and skipped, and 40 by email
of priority 3."""

VACUUMED = "UPDATE pg_class SET relallvisible = relpages WHERE oid = 'notification_records'::regclass"
"""Lets the planner believe that the table was vacuumed, which is impossible in a transaction."""

LISTS: tuple[tuple[dict[str, Any], dict[str, Any], int], ...] = (
    ({}, {}, RECORDS),
    ({"p": 2}, {}, RECORDS),
    ({"p": 100}, {}, RECORDS),
    *(({"status__exact": status}, {"status": status}, 20) for status in ("pending", "failed", "skipped")),
    ({"status__exact": "sending"}, {"status": "sending"}, 0),
    ({"status__exact": "sent"}, {"status": "sent"}, 34_940),
    ({"status__exact": "dead"}, {"status": "dead"}, 15_000),
    ({"status__exact": "dead", "p": 3}, {"status": "dead"}, 15_000),
    ({"channel": "feishu"}, {"channel": "feishu"}, RECORDS - 40),
    ({"channel": "email"}, {"channel": "email"}, 40),
    ({"channel": "email", "status__exact": "sent"}, {"channel": "email", "status": "sent"}, 40),
    ({"priority": "1"}, {"priority": 1}, RECORDS - 40),
    ({"priority": "3"}, {"priority": 3}, 40),
    ({"priority": "3", "status__exact": "sent"}, {"priority": 3, "status": "sent"}, 40),
    ({"priority": "0"}, {"priority": 0}, 0),
    ({"code": "rare"}, {"last_error_code": "rare"}, 40),
    ({"code": "rare", "status__exact": "failed"}, {"last_error_code": "rare", "status": "failed"}, 20),
    ({"code": "rare", "status__exact": "dead"}, {"last_error_code": "rare", "status": "dead"}, 0),
    ({"code": "none"}, {"last_error_code": "none"}, 0),
    ({"code": "provider_5xx"}, {"last_error_code": "provider_5xx"}, 15_000),
    ({"q": "a7"}, {"dedupe_key": "a7"}, 1),
)
"""Parameters of the list, the same selection as a query, and the number of its records."""


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows the scans of an executed statement read, with those that a filter removed."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in all_nodes(plan)
        if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Index Scan"
    )


@pytest.mark.django_db
@pytest.mark.parametrize("factor", [pytest.param(7919, id="in random order"), pytest.param(49_999, id="oldest first")])
def test_no_statement_of_the_list_reads_much_of_the_table(admin_client: Client, factor: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(NEW_TABLE)
        fill_table("a", "sent", RECORDS)
        cursor.execute(NUMBER, [factor])
        cursor.execute(SPREAD)
        cursor.execute("ANALYZE notification_records")
        cursor.execute(VACUUMED)

    for parameters, conditions, count in LISTS:
        with CaptureQueriesContext(connection) as captured:
            response = admin_client.get(LIST, parameters)

        matching = NotificationRecord.objects.filter(**conditions).order_by("-created_at", "-id")
        start = 50 * (parameters.get("p", 1) - 1)
        assert matching.count() == count, parameters
        assert list(response.context["cl"].result_list) == list(matching[start : start + 50]), parameters
        statements = [query["sql"] for query in captured if 'FROM "notification_records"' in query["sql"]]
        assert len(statements) == 3, parameters  # the count, the page, and the first and last date
        plans = [executed_plan(statement.replace("%", "%%"), {}, analyze=False) for statement in statements]
        assert max(map(rows_read, plans)) <= MAX_ROWS_READ, (parameters, statements)
        if count <= FEW:
            assert max(map(pages_read, plans)) <= MAX_PAGES_READ, (parameters, statements)


@pytest.mark.django_db
def test_successful_delivery_by_feishu_writes_to_no_index_of_the_list() -> None:
    before = sizes()
    fill_table("a", "pending", 2000)
    records = NotificationRecord.objects.filter(dedupe_key__startswith="a")

    records.update(status="sending", lease_token=uuid.uuid4())
    records.update(status="sent", lease_token=None, next_attempt_at=None)

    assert sizes() == before
    assert len(before) == 4


def sizes() -> list[tuple[str, int]]:
    """Return the names and sizes of the indexes that serve the list."""
    statement = (
        "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE starts_with(relname::text, 'notification_by_')"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} ORDER BY relname")
        return list(cursor.fetchall())
