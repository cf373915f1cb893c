"""Claiming stays cheap however many finished rows lie beside the due ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection, transaction

from notifications.claim import CLAIM_SQL, IN_INDEX_ORDER
from notifications.conf import service_options

FILL = """
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, trace_id, status, attempt_count, max_attempts, round, next_attempt_at,
    last_error_code, last_error, provider_message_id
)
SELECT 'feishu', n, '', '', '', '', 0, %(prefix)s || n, '/a', 'text', '', false, '', %(status)s, 0, 5, 0,
       CASE WHEN %(status)s = 'pending' THEN now() - n * interval '1 second' END, '', '', ''
FROM generate_series(1, %(count)s) AS n
"""


def fill(prefix: str, status: str, count: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"prefix": prefix, "status": status, "count": count})


def plan(*, analyze: bool = True) -> dict[str, Any]:
    """Return the plan of claiming 100 rows as it really ran, and undo the claim. analyze: bring statistics up to date."""
    parameters = {
        "now": None,
        "channels": ["feishu"],
        "limit": 100,
        "max_attempts": 5,
        "lease": service_options().lease,
        "token": "00000000-0000-0000-0000-000000000001",
    }
    with connection.cursor() as cursor:
        if analyze:
            cursor.execute("ANALYZE notification_records")
        mark = transaction.savepoint()
        explain = IN_INDEX_ORDER + "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + CLAIM_SQL.format(only="")
        cursor.execute(explain, parameters)
        [answer] = cursor.fetchone()
        transaction.savepoint_rollback(mark)
    found: dict[str, Any] = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    return found


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", []) for inner in nodes(child))]


def pages(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


@pytest.mark.django_db
def test_the_claim_reads_the_due_index_and_its_cost_does_not_grow_with_finished_rows() -> None:
    fill("due", "pending", 1000)
    fill("done-a", "sent", 1000)
    few = next(node for node in nodes(plan()) if node.get("Subplan Name") == "CTE due")

    fill("done-b", "sent", 200_000)
    found = nodes(plan())

    many = next(node for node in found if node.get("Subplan Name") == "CTE due")
    assert "notification_due" in {node.get("Index Name") for node in nodes(many)}
    assert not [node for node in found if node["Node Type"] == "Seq Scan" and node["Alias"] != "endpoint"]
    assert many["Actual Rows"] == 100
    assert pages(many) <= pages(few) * 1.2


@pytest.mark.django_db
def test_the_claim_reads_the_due_index_in_its_order_without_statistics_too() -> None:
    fill("due", "pending", 20_000)
    with connection.cursor() as cursor:  # as in a new installation
        cursor.execute("DELETE FROM pg_statistic WHERE starelid = 'notification_records'::regclass")
        cursor.execute("UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relname LIKE 'notification_%'")

    due = next(node for node in nodes(plan(analyze=False)) if node.get("Subplan Name") == "CTE due")

    assert "Sort" not in {node["Node Type"] for node in nodes(due)}
    assert [node["Index Name"] for node in nodes(due) if "Index Name" in node] == ["notification_due"]
    assert due["Actual Rows"] == 100
