"""The cost of a claim and of a purge does not depend on the number of other rows."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from django.db import connection, transaction

from notifications.conf import service_options
from notifications.delivery.claim import CLAIM
from notifications.maintenance.pruner import BATCH_ROWS, retention_cutoff
from notifications.models import NotificationRecord, RejectedRequest
from notifications.sql import FORBID_SORT, load_sql
from notifications.states import FINAL

TABLES = ("notification_records", "notification_delivery_attempts", "notification_rejected_requests")

FILL = """
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, trace_id, status, attempt_count, max_attempts, round, next_attempt_at,
    last_error_code, last_error, provider_message_id, created_at, updated_at
)
SELECT 'feishu', n, '', '', '', '', 0, %(prefix)s || n, '/a', 'text', '', false, '', %(status)s, 0, 5, 0,
       CASE WHEN %(status)s = 'pending' THEN now() - n * interval '1 second' END, '', '', '',
       now() - %(days)s * interval '1 day', now() - %(days)s * interval '1 day'
FROM generate_series(1, %(count)s) AS n
"""


FILL_ATTEMPTS = """
INSERT INTO notification_delivery_attempts (
    record_id, round, number, cause, started_at, outcome, error_code, error, response_excerpt, worker
)
SELECT id, 0, 1, 'event', created_at, 'success', '', '', '', '' FROM notification_records
"""


def fill(prefix: str, status: str, count: int, *, days: int = 0) -> None:
    """Insert rows; days: how old they are."""
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"prefix": prefix, "status": status, "count": count, "days": days})


def plan_of_claim(*, analyze: bool = True) -> dict[str, Any]:
    """Return the plan of claiming 100 rows as it really ran; undo the claim. analyze: refresh the statistics."""
    parameters = {
        "now": None,
        "channels": ["feishu"],
        "limit": 100,
        "max_attempts": 5,
        "lease": service_options().lease,
        "token": "00000000-0000-0000-0000-000000000001",
        "record_id": None,
    }
    return plan(CLAIM, parameters, before=FORBID_SORT, analyze=analyze)


def plan_of_purge(statement: str, *, days: int = 30, since: datetime | None = None) -> dict[str, Any]:
    """Return the plan of purging one batch as it really ran, and undo it."""
    parameters = {"before": retention_cutoff(days), "since": since, "batch": BATCH_ROWS, "final": list(map(str, FINAL))}
    return plan(load_sql("notifications.maintenance", statement), parameters)


def plan(statement: str, parameters: dict[str, Any], *, before: str = "", analyze: bool = True) -> dict[str, Any]:
    with connection.cursor() as cursor:
        for table in TABLES if analyze else ():
            cursor.execute(f"ANALYZE {table}")
        mark = transaction.savepoint()
        cursor.execute(f"{before} EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
        [answer] = cursor.fetchone()
        transaction.savepoint_rollback(mark)
    found: dict[str, Any] = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    return found


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", []) for inner in nodes(child))]


def pages(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


@pytest.mark.django_db
def test_claim_reads_the_due_index_and_its_cost_does_not_grow_with_finished_rows() -> None:
    fill("due", "pending", 1000)
    fill("done-a", "sent", 1000)
    few = next(node for node in nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    fill("done-b", "sent", 200_000)
    found = nodes(plan_of_claim())

    many = next(node for node in found if node.get("Subplan Name") == "CTE due")
    assert "notification_due" in {node.get("Index Name") for node in nodes(many)}
    assert not [node for node in found if node["Node Type"] == "Seq Scan" and node["Alias"] != "endpoint"]
    assert many["Actual Rows"] == 100
    assert pages(many) <= pages(few) * 1.2


@pytest.mark.django_db
def test_claim_reads_the_due_index_in_its_order_without_statistics() -> None:
    fill("due", "pending", 20_000)
    with connection.cursor() as cursor:  # as in a new installation
        cursor.execute("DELETE FROM pg_statistic WHERE starelid = 'notification_records'::regclass")
        cursor.execute("UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relname LIKE 'notification_%'")

    due = next(node for node in nodes(plan_of_claim(analyze=False)) if node.get("Subplan Name") == "CTE due")

    assert "Sort" not in {node["Node Type"] for node in nodes(due)}
    assert [node["Index Name"] for node in nodes(due) if "Index Name" in node] == ["notification_due"]
    assert due["Actual Rows"] == 100


def read_whole(found: list[dict[str, Any]]) -> list[str]:
    return [node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"]


@pytest.mark.django_db
@pytest.mark.parametrize("old", [1000, 200_000])
def test_purge_reads_its_batch_by_indexes_whatever_the_number_of_rows(old: int) -> None:
    fill("old", "sent", old, days=31)
    fill("young", "sent", 201_000 - old)
    with connection.cursor() as cursor:
        cursor.execute(FILL_ATTEMPTS)

    root = plan_of_purge("purge_records")

    found = nodes(root)
    [walked] = [node for node in found if node["Node Type"] == "Limit"]
    [by] = [node["Index Name"] for node in nodes(walked) if "Index Name" in node]
    assert by.startswith("notification_records_created_at_")
    assert (walked["Actual Rows"], read_whole(found)) == (BATCH_ROWS, [])
    assert {"attempt_number", "notification_records_pkey"} <= {node.get("Index Name") for node in found}
    assert pages(root) < 20 * BATCH_ROWS


@pytest.mark.django_db
def test_purge_without_old_rows_reads_few_pages() -> None:
    fill("young", "sent", 200_000)

    # Other tests leave dead rows of up to 90 days ago in the index.
    assert pages(plan_of_purge("purge_records", days=365)) < 20


@pytest.mark.django_db
def test_purge_does_not_read_deleted_rows_again() -> None:
    fill("gone", "sent", 20_000, days=90)
    fill("next", "sent", 1000, days=80)
    NotificationRecord.objects.filter(dedupe_key__startswith="gone").delete()  # in the index until a vacuum

    root = plan_of_purge("purge_records", days=70, since=retention_cutoff(85))

    [walked] = [node for node in nodes(root) if node["Node Type"] == "Limit"]
    assert (walked["Actual Rows"], pages(walked) < 4 * BATCH_ROWS) == (BATCH_ROWS, True)
    again = plan_of_purge("purge_records", days=70)
    assert pages(again) > pages(root)


@pytest.mark.django_db
def test_purge_reads_rejected_requests_by_their_index() -> None:
    for days, count in ((31, 1000), (0, 20_000)):
        at = retention_cutoff(days)
        RejectedRequest.objects.bulk_create(
            RejectedRequest(source="test", payload="{}", errors=[], created_at=at) for _ in range(count)
        )

    found = nodes(plan_of_purge("purge_rejected_requests"))

    assert read_whole(found) == []
    assert sum(node["Node Type"] == "Index Scan" for node in found) >= 2
