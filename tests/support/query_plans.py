"""Many rows in the tables, and the plans of statements as PostgreSQL executed them."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection, transaction

TABLES = ("notification_records", "notification_delivery_attempts", "notification_rejected_requests")

INSERT_RECORDS = """
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, trace_id, priority, status, attempt_count, max_attempts, round,
    next_attempt_at, last_error_code, last_error, provider_message_id, created_at, updated_at
)
SELECT %(channel)s, n, '', '', '', '', 0, %(prefix)s || n, '/a', 'text', '', false, '', %(priority)s,
       %(status)s, 0, 5, 0, CASE WHEN %(status)s = 'pending' THEN now() - n * interval '1 second' END, '', '', '',
       now() - %(days)s * interval '1 day', now() - %(days)s * interval '1 day'
FROM generate_series(1, %(count)s) AS n
"""


def fill_table(
    prefix: str, status: str, count: int, *, days: int = 0, channel: str = "feishu", priority: int = 1
) -> None:
    """Insert records of this age in days."""
    parameters: dict[str, Any] = {"prefix": prefix, "status": status, "count": count, "days": days, "channel": channel}
    parameters["priority"] = priority
    with connection.cursor() as cursor:
        cursor.execute(INSERT_RECORDS, parameters)


def executed_plan(
    statement: str, parameters: dict[str, Any], *, before: str = "", analyze: bool = True
) -> dict[str, Any]:
    """Execute a statement, return its plan, and roll it back. analyze: refresh the statistics first."""
    with connection.cursor() as cursor:
        for table in TABLES if analyze else ():
            cursor.execute(f"ANALYZE {table}")
        savepoint = transaction.savepoint()
        cursor.execute(f"{before} EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
        [answer] = cursor.fetchone()
        transaction.savepoint_rollback(savepoint)
    plan: dict[str, Any] = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    return plan


def all_nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the node and all nodes below it."""
    return [node, *(inner for child in node.get("Plans", []) for inner in all_nodes(child))]


def pages_read(node: dict[str, Any]) -> int:
    """Return the number of pages that the node and those below it read."""
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])
