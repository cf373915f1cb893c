"""What our service has to do with a recorded case that runs on PostgreSQL: the same, or what is right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import pytest
from django.db import IntegrityError, transaction

from notifications.content.text import trim
from notifications.delivery.retry_policy import retry_delay
from notifications.ingest.validation import DedupeConflict
from notifications.models import DeliveryAttempt
from notifications.states import CLAIMABLE, FINAL, Outcome, Status
from tests.support.go_vectors import Case, Json, World, facts, moment, result_of

Rule = Callable[[Case], object]


def agrees_or_is_right(case: Case) -> None:
    """Run the case by the first rule one of its tags has, else compare all of it with the Go service."""
    for tag, rule in RIGHT.items():
        if tag in case.tags:
            rule(case)
            return
    if "seed-defect" in case.tags:
        undecided(case)
    agrees(case)


def undecided(case: Case) -> NoReturn:
    """Fail, since nobody said what is right."""
    pytest.fail(f"{case}: a defect of the Go service without a rule, decide on one: {', '.join(sorted(case.tags))}")


def agrees(case: Case) -> World | None:
    """Run every step and compare; None where the database refuses a record that the Go service could hold."""
    if not all(map(can_exist, case.records)):
        with pytest.raises(IntegrityError), transaction.atomic():
            World(case)
        return None
    world = World(case)
    for step, expected in case.steps:
        if not all(map(can_exist, expected["records"])):
            with pytest.raises(IntegrityError), transaction.atomic():
                world.run(step)
            return None
        agree(world, step, expected)
    return world


def agree(world: World, step: Json, expected: Json) -> None:
    """Make one step and compare everything."""
    done = world.run(step)

    assert (done.error is None) == (expected["error"] is None)
    assert done.result == result_of(expected["result"])
    assert done.requests == expected["provider_requests"]
    assert world.rows() == {record["id"]: facts(record) for record in expected["records"]}


def can_exist(record: Json) -> bool:
    """Tell whether our database takes the record: a known status, and a time where one is waited for."""
    if record["status"] == Status.FAILED:
        return record["next_retry_at"] is not None
    return record["status"] in Status.values


def is_used_up(world: World, row: Json) -> bool:
    """Tell whether the row has no attempts left."""
    limit = row["max_attempts"] if row["max_attempts"] > 0 else world.options.max_attempts
    return bool(row["attempt_count"] >= limit)


def delay_of(world: World, row: Json) -> timedelta:
    """Return the backoff after the row's attempts."""
    return timedelta(seconds=retry_delay(row["attempt_count"], world.options))


def ids(requests: list[Json]) -> list[int]:
    """Return the records that were sent."""
    return [request["notification_id"] for request in requests]


def cannot_exist(case: Case) -> None:
    """The database refuses the record."""
    assert agrees(case) is None


def used_up(case: Case) -> None:
    """A record without attempts left is not sent; it dies at once."""
    world = World(case)
    rows = {key: row for key, row in world.rows().items() if row["status"] in CLAIMABLE and is_used_up(world, row)}

    done = [world.run(step) for step, _ in case.steps]

    dead = {"status": "dead", "last_error_code": "attempts_exhausted", "last_error": "no attempts left"}
    assert rows
    for key, row in rows.items():
        assert world.rows()[key] == row | dead | {"next_retry_at": None}
        assert not any(key in ids(one.requests) for one in done)
    first = done[0].result
    assert first
    if case.steps[0][0]["op"] == "handle":
        assert (first["status"], first["delivered"], first["provider_error"]) == ("dead", False, "attempts_exhausted")
    else:
        assert (first["retried"], first["dead"]) == (first["scanned"] - len(rows), len(rows))


def amended(change: Callable[[Json], Json]) -> Rule:
    """Return the rule: as the Go service, but for the columns that `change` gives for an answer."""

    def rule(case: Case) -> None:
        world = World(case)
        changes: dict[tuple[int, int], Json] = {}
        for step, expected in case.steps:
            result = expected["result"]
            for request, scripted in zip(expected["provider_requests"], step.get("provider") or (), strict=False):
                fields = change(scripted)
                changes[request["notification_id"], request["attempt_count"]] = fields
                if step["op"] == "handle" and "last_error_code" in fields:
                    result = result | {"provider_error": fields["last_error_code"]}
            records = [
                record | changes.get((record["id"], record["attempt_count"]), {}) for record in expected["records"]
            ]
            agree(world, step, expected | {"result": result, "records": records})

    return rule


def kept_result(scripted: Json) -> Json:
    """What a provider can tell beside its error is kept."""
    if scripted["error"] is None or scripted["outcome"] or not trim(scripted["error_code"]):
        return {}
    return {
        "last_error_code": trim(scripted["error_code"]),
        "last_error": trim(scripted["error_message"]) or trim(scripted["error"]),
        "provider_message_id": trim(scripted["provider_message_id"]),
    }


def kept_text(scripted: Json) -> Json:
    """The text of the error stands where the result has none."""
    lost = scripted["error"] and not trim(scripted["error_message"])
    return {"last_error": trim(scripted["error"])} if lost else {}


def filled_code(scripted: Json) -> Json:
    """A blank code is no code."""
    blank = not scripted["outcome"] and not trim(scripted["error_code"])
    return {"last_error_code": "network_error"} if blank else {}


def error_noted(case: Case) -> None:
    """A proven send stays sent; that an error came with it can be read in the attempt."""
    agrees(case)

    texts = [
        trim(scripted["error_message"]) or trim(scripted["error"] or "")
        for step, expected in case.steps
        for scripted in (step.get("provider") or [])[: len(expected["provider_requests"])]
    ]
    assert texts
    assert list(DeliveryAttempt.objects.order_by("id").values_list("error", flat=True)) == texts
    assert DeliveryAttempt.objects.filter(outcome=Outcome.SUCCESS).exclude(error="").exists()


def one_clock(case: Case) -> None:
    """What is due, when it was sent and when it is tried again are told by the same clock."""
    world = World(case)
    for step, _ in case.steps:
        now = moment(step.get("sweep_now") or step["now"])
        due, before = world.due(now), world.rows()

        done = world.run(step)

        assert ids(done.requests) == due
        for key, row in world.rows().items():
            if key not in due:
                assert row == before[key]
            elif row["status"] == Status.FAILED:
                assert row["next_retry_at"] == now + delay_of(world, row)
            elif row["status"] == Status.SENT:
                assert row["sent_at"] == now


def backoff_kept(case: Case) -> None:
    """A duplicate before the backoff is over sends nothing and changes nothing."""
    world = World(case)
    duplicates = 0
    for step, expected in case.steps:
        now = moment(step.get("sweep_now") or step["now"])
        rows = world.rows().items()
        waiting = {key: row for key, row in rows if row["status"] == Status.FAILED and row["next_retry_at"] > now}
        if not waiting and not duplicates:
            agree(world, step, expected)
            continue
        due = world.due(now)

        done = world.run(step)

        after = world.rows()
        assert done.result
        assert {key: after[key] for key in waiting} == waiting
        if step["op"] != "handle":
            assert ids(done.requests) == due
        elif row := waiting.get(done.result["record_id"]):
            duplicates += 1
            assert done.requests == []
            assert (done.result["reused"], done.result["delivered"]) == (True, False)
            assert done.result["next_retry_at"] == row["next_retry_at"]
    assert duplicates


def conflict(case: Case) -> None:
    """Another user's event is refused, not swallowed."""
    world = World(case)
    refused = 0
    for step, expected in case.steps:
        before = world.rows()
        key, user = trim(step["payload"]["dedupe_key"]), step["payload"]["user_id"]
        owners = {row["user_id"] for row in before.values() if (row["channel"], row["dedupe_key"]) == ("feishu", key)}
        if owners <= {user}:
            if not refused:
                agree(world, step, expected)
            continue

        done = world.run(step)

        refused += 1
        assert isinstance(done.error, DedupeConflict)
        assert (done.requests, world.rows()) == ([], before)
    assert refused


def swept(case: Case) -> None:
    """A sweep sends what is pending, once; a duplicate that comes later finds it sent."""
    world = World(case)
    pending = [key for key, row in world.rows().items() if row["status"] == Status.PENDING]

    done = [world.run(step) for step, _ in case.steps]

    sent = [key for one in done for key in ids(one.requests)]
    assert pending
    assert set(pending) <= set(ids(done[0].requests))
    assert [sent.count(key) for key in pending] == [1] * len(pending)
    assert {world.rows()[key]["status"] for key in pending} == {"sent"}


def not_starved(case: Case) -> None:
    """Rows of other channels are left alone and take no place in the sweep."""
    world = World(case)
    before = world.rows()
    first = case.steps[0][0]
    due = world.due(moment(first.get("sweep_now") or first["now"]))

    done = [world.run(step) for step, _ in case.steps]

    assert due
    assert ids(done[0].requests) == due[: first["limit"]]
    for key, row in world.rows().items():
        assert row["channel"] == "feishu" or row == before[key]


def not_stuck(case: Case) -> None:
    """No answer of a provider leaves a row in `sending`, and what a lost worker left there is taken up again."""
    world = World(case)
    leased = {key: row for key, row in world.rows().items() if row["status"] == Status.SENDING}
    over = world.now + world.lease
    odd = False
    for step, expected in case.steps:
        script: list[Json] = step.get("provider") or []
        odd = odd or any("panic" in scripted or "response_payload_kind" in scripted for scripted in script)
        if not odd and moment(step["now"]) < over:
            agree(world, step, expected)
            continue

        done = world.run(step)

        rows = world.rows()
        assert not any(row["status"] == Status.SENDING for key, row in rows.items() if key not in leased)
        for key, scripted in zip(ids(done.requests), script, strict=False):
            row = rows[key]
            if "panic" in scripted:
                final = is_used_up(world, row)
                assert (row["status"], row["last_error_code"]) == ("dead" if final else "failed", "internal_error")
                assert row["next_retry_at"] == (None if final else world.now + delay_of(world, row))
            elif "response_payload_kind" in scripted:
                assert (row["status"], row["sent_at"]) == ("sent", world.now)
                assert row["provider_response"] == {"v": "nan"}
        assert all(rows[key]["status"] == Status.SENT for key in ids(done.requests)[len(script) :])

    world.run({"op": "sweep", "now": (world.now + timedelta(days=1)).isoformat(), "limit": 1000})

    rows = world.rows()
    assert all(row["status"] in FINAL for row in rows.values() if row["channel"] == "feishu")
    for key, row in leased.items():
        if is_used_up(world, row):
            assert (rows[key]["status"], rows[key]["last_error_code"]) == ("dead", "lease_expired")
            assert rows[key]["attempt_count"] == row["attempt_count"]
        else:
            assert (rows[key]["status"], rows[key]["attempt_count"]) == ("sent", row["attempt_count"] + 1)


RIGHT: dict[str, Rule] = {
    "attempts-used-up": used_up,  # first: where nothing is sent, what the answer would have been does not matter
    "attempt-over-limit": used_up,
    "result-discarded": amended(kept_result),
    "error-text-lost": amended(kept_text),
    "blank-code": amended(filled_code),
    "error-ignored": error_noted,
    "two-clocks": one_clock,
    "backoff-bypass": backoff_kept,
    "cross-user-dedupe": conflict,
    "pending-not-swept": swept,
    "failed-not-swept": cannot_exist,
    "starvation": not_starved,
    "stuck-sending": not_stuck,
}
"""What to do with cases where the Go service was wrong, by tag."""
