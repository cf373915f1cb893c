"""The cost of a claim and of a purge does not depend on the number of other rows."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from notifications.conf import service_options
from notifications.delivery.claim import CLAIM
from notifications.maintenance.pruner import BATCH_ROWS, retention_cutoff
from notifications.models import NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.ordering.key_order import BLOCKED
from notifications.sql import FORBID_SORT, load_sql
from notifications.states import FINAL, HoldReason, Priority
from tests.support.query_plans import all_nodes, executed_plan, fill_table, pages_read

FILL_ATTEMPTS = """
INSERT INTO notification_delivery_attempts (
    record_id, round, number, cause, started_at, outcome, error_code, error, response_excerpt, worker
)
SELECT id, 0, 1, 'event', created_at, 'success', '', '', '', '' FROM notification_records
"""


def plan_of_claim(*, analyze: bool = True, dead_blocks: bool = False) -> dict[str, Any]:
    """Return the executed plan of a claim of 100 rows, and roll it back. analyze: refresh the statistics first."""
    parameters = {
        "now": None,
        "channels": ["feishu"],
        "priorities": Priority.values,
        "limit": 100,
        "max_attempts": 5,
        "lease": service_options().lease,
        "token": "00000000-0000-0000-0000-000000000001",
        "ids": None,
        "since": [None] * len(Priority.values),
        "dead_blocks": dead_blocks,
    }
    return executed_plan(CLAIM, parameters, before=FORBID_SORT, analyze=analyze)


def plan_of_purge(statement: str, *, days: int = 30, since: datetime | None = None) -> dict[str, Any]:
    """Return the executed plan of one batch of a purge, and roll it back."""
    parameters = {"before": retention_cutoff(days), "since": since, "batch": BATCH_ROWS, "final": list(map(str, FINAL))}
    return executed_plan(load_sql("notifications.maintenance", statement), parameters)


@pytest.mark.django_db
def test_claim_reads_the_due_index_and_its_cost_does_not_grow_with_finished_rows() -> None:
    fill_table("due", "pending", 1000)
    fill_table("done-a", "sent", 1000)
    few = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    fill_table("done-b", "sent", 200_000)
    plan_nodes = all_nodes(plan_of_claim())

    many = next(node for node in plan_nodes if node.get("Subplan Name") == "CTE due")
    assert "notification_due_by_priority" in {node.get("Index Name") for node in all_nodes(many)}
    assert not [node for node in plan_nodes if node["Node Type"] == "Seq Scan" and node["Alias"] != "endpoint"]
    assert many["Actual Rows"] == 100
    assert pages_read(many) <= pages_read(few) * 1.2


@pytest.mark.django_db
def test_claim_reads_the_due_index_in_its_order_without_statistics() -> None:
    fill_table("due", "pending", 20_000)
    with connection.cursor() as cursor:  # as in a new installation
        cursor.execute("DELETE FROM pg_statistic WHERE starelid = 'notification_records'::regclass")
        cursor.execute("UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relname LIKE 'notification_%'")

    due = next(node for node in all_nodes(plan_of_claim(analyze=False)) if node.get("Subplan Name") == "CTE due")

    read = [node for node in all_nodes(due) if node["Actual Loops"]]  # no record has an order key
    assert [node["Index Name"] for node in read if "Index Name" in node] == ["notification_due_by_priority"]
    nodes = [node for node in read if node["Node Type"] in ("Index Scan", "Sort")]
    assert {node["Actual Rows"] * node["Actual Loops"] for node in nodes} == {100}
    assert due["Actual Rows"] == 100


@pytest.mark.django_db
def test_claim_reads_no_due_record_of_a_channel_without_a_provider() -> None:
    fill_table("due", "pending", 1000)
    alone = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    fill_table("other", "pending", 50_000, channel="pager")
    beside_others = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    assert beside_others["Actual Rows"] == 100
    assert pages_read(beside_others) <= pages_read(alone) * 1.2


@pytest.mark.django_db
def test_claim_reads_a_backlog_of_other_priorities_no_further_than_its_own() -> None:
    fill_table("due", "pending", 1000)
    alone = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    fill_table("low", "pending", 50_000, priority=0)
    beside_others = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    assert beside_others["Actual Rows"] == 100
    assert pages_read(beside_others) <= pages_read(alone) * 2.4, "100 rows of each priority"


ORDER_INDEXES = {"notification_order", "notification_order_in_flight", "notification_order_dead"}


def make_waiting(prefix: str, count: int, key: str) -> None:
    """Insert records that wait for an earlier one of their order key."""
    fill_table(prefix, "pending", count)
    NotificationRecord.objects.filter(dedupe_key__startswith=prefix).update(
        order_key=key, hold_reason=HoldReason.ORDER, next_attempt_at=Now() + timedelta(hours=1)
    )


@pytest.mark.django_db
def test_claim_does_not_read_the_records_that_wait_for_their_order_key() -> None:
    fill_table("due", "pending", 1000)
    alone = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    make_waiting("waiting", 20_000, "order-1")
    beside_others = next(node for node in all_nodes(plan_of_claim()) if node.get("Subplan Name") == "CTE due")

    assert beside_others["Actual Rows"] == 100
    assert pages_read(beside_others) <= pages_read(alone) * 1.2


@pytest.mark.django_db
@pytest.mark.parametrize("first", [True, False])
def test_claim_decides_by_one_entry_of_each_index_however_many_records_of_a_key_wait(first: bool) -> None:
    """`first`: the due record goes before those that wait, or it has to wait itself."""
    fill_table("due", "pending", 99)
    fill_table("head", "pending", 1)
    make_waiting("waiting", 20_000, "order-1")
    NotificationRecord.objects.filter(dedupe_key="head1").update(order_key="order-2")
    with connection.cursor() as cursor:
        cursor.execute("REINDEX TABLE notification_records")  # the update has left entries
    alone = next(node for node in all_nodes(plan_of_claim(dead_blocks=True)) if node.get("Subplan Name") == "CTE due")

    NotificationRecord.objects.filter(dedupe_key="head1").update(order_key="order-1")
    if not first:
        NotificationRecord.objects.filter(dedupe_key="waiting5").update(round=1)
    plan = plan_of_claim(dead_blocks=True)

    due = next(node for node in all_nodes(plan) if node.get("Subplan Name") == "CTE due")
    claimed = next(node for node in all_nodes(plan) if node.get("Subplan Name") == "CTE claimed")
    assert (due["Actual Rows"], claimed["Actual Rows"]) == (100, 100 if first else 99)
    assert pages_read(due) <= pages_read(alone) + 4
    assert {node.get("Index Name") for node in all_nodes(due) if node["Actual Loops"]} >= (
        ORDER_INDEXES if first else {"notification_order"}
    )


@pytest.mark.django_db
def test_the_next_record_of_a_key_is_found_by_one_entry_of_each_index() -> None:
    fill_table("done", "sent", 20_000)
    make_waiting("waiting", 20_000, "order-1")
    with connection.cursor() as cursor:
        cursor.execute("REINDEX TABLE notification_records")  # the updates have left entries
    parameters = {"now": None, "channels": ["feishu"], "keys": ["order-1"], "dead_blocks": True}
    statement = load_sql("notifications.ordering", "let_next_go", blocked=BLOCKED)

    root = executed_plan(statement, parameters)

    free = next(node for node in all_nodes(root) if node.get("Subplan Name") == "CTE free")
    assert free["Actual Rows"] == 1
    assert pages_read(free) < 40
    assert scanned_tables(all_nodes(root)) == []


@pytest.mark.django_db
def test_release_of_held_records_reads_only_the_records_of_its_channel() -> None:
    user = get_user_model().objects.create_user("owner")
    channel = UserNotificationChannel.objects.create(user=user, webhook_url="https://www.feishu.cn/flow/api/x")
    fill_table("other", "pending", 20_000)  # with the user ids 1 to 20,000
    NotificationRecord.objects.update(user_id=user.pk + F("user_id") % 4)  # so that the index on users is of little use
    fill_table("held", "pending", 50)
    NotificationRecord.objects.filter(dedupe_key__startswith="held").update(user_id=0, hold_reason="channel_paused")
    NotificationRecord.objects.filter(dedupe_key__in=["held1", "held2"]).update(user_id=user.pk)
    parameters = {"now": None, "channel": channel.pk, "batch": 60, "rate": 1.0}

    plan_nodes = all_nodes(executed_plan(load_sql("notifications.delivery", "release_held_records"), parameters))

    assert "notification_held_up" in {node.get("Index Name") for node in plan_nodes}
    limit_nodes = [node for node in plan_nodes if node["Node Type"] == "Limit"]
    assert max(node["Actual Rows"] for node in limit_nodes) == 2
    assert "notification_records" not in scanned_tables(plan_nodes)


@pytest.mark.django_db
def test_indexes_named_in_the_sql_files_exist() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()")
        existing = {name for (name,) in cursor.fetchall()}

    for path in sorted(Path("notifications").glob("*/sql/*.sql")):
        header = " ".join(line.removeprefix("-- ") for line in path.read_text().splitlines() if line.startswith("--"))
        before, _, indexes = header.partition("Index")
        assert before, f"{path} does not describe its statement"
        assert indexes, f"{path} does not name its index"
        assert set(re.findall(r"([a-z]+_[a-z_]+) \(", indexes)) <= existing, path


def scanned_tables(plan_nodes: list[dict[str, Any]]) -> list[str]:
    return [node["Relation Name"] for node in plan_nodes if node["Node Type"] == "Seq Scan"]


@pytest.mark.django_db
@pytest.mark.parametrize("old_rows", [1000, 200_000])
def test_purge_reads_its_batch_by_indexes_whatever_the_number_of_rows(old_rows: int) -> None:
    fill_table("old", "sent", old_rows, days=31)
    fill_table("young", "sent", 201_000 - old_rows)
    with connection.cursor() as cursor:
        cursor.execute(FILL_ATTEMPTS)

    root = plan_of_purge("purge_records")

    plan_nodes = all_nodes(root)
    [limit_node] = [node for node in plan_nodes if node["Node Type"] == "Limit"]
    [index] = [node["Index Name"] for node in all_nodes(limit_node) if "Index Name" in node]
    assert index.startswith("notification_records_created_at_")
    assert (limit_node["Actual Rows"], scanned_tables(plan_nodes)) == (BATCH_ROWS, [])
    assert {"attempt_number", "notification_records_pkey"} <= {node.get("Index Name") for node in plan_nodes}
    assert pages_read(root) < 20 * BATCH_ROWS


@pytest.mark.django_db
def test_purge_without_old_rows_reads_few_pages() -> None:
    fill_table("young", "sent", 200_000)

    # Other tests leave deleted rows of the last 90 days in the index.
    assert pages_read(plan_of_purge("purge_records", days=365)) < 20


@pytest.mark.django_db
def test_purge_does_not_read_deleted_rows_again() -> None:
    fill_table("gone", "sent", 20_000, days=90)
    fill_table("next", "sent", 1000, days=80)
    NotificationRecord.objects.filter(dedupe_key__startswith="gone").delete()  # they stay in the index until a vacuum

    root = plan_of_purge("purge_records", days=70, since=retention_cutoff(85))

    [limit_node] = [node for node in all_nodes(root) if node["Node Type"] == "Limit"]
    assert (limit_node["Actual Rows"], pages_read(limit_node) < 4 * BATCH_ROWS) == (BATCH_ROWS, True)
    again = plan_of_purge("purge_records", days=70)
    assert pages_read(again) > pages_read(root)


@pytest.mark.django_db
def test_purge_reads_rejected_requests_by_their_index() -> None:
    for days, count in ((31, 1000), (0, 20_000)):
        at = retention_cutoff(days)
        RejectedRequest.objects.bulk_create(
            RejectedRequest(source="test", payload="{}", errors=[], created_at=at) for _ in range(count)
        )

    plan_nodes = all_nodes(plan_of_purge("purge_rejected_requests"))

    assert scanned_tables(plan_nodes) == []
    assert sum(node["Node Type"] == "Index Scan" for node in plan_nodes) >= 2
