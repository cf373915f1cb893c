"""The rules of recorded cases that run on PostgreSQL: do the same as the Go service, or what is right instead."""

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
from tests.support.go_vectors import Case, CaseRun, Json, comparable, moment, result_of

Rule = Callable[[Case], object]


def check_case(case: Case) -> None:
    """Check the case by the first rule that one of its tags has, or else compare everything with the Go service."""
    for tag, rule in RULES_BY_TAG.items():
        if tag in case.tags:
            rule(case)
            return
    if "seed-defect" in case.tags:
        fail_without_rule(case)
    check_all_steps(case)


def fail_without_rule(case: Case) -> NoReturn:
    """Fail, because the right behaviour is not defined."""
    pytest.fail(f"{case}: no rule for this defect of the Go service; add one: {', '.join(sorted(case.tags))}")


def check_all_steps(case: Case) -> CaseRun | None:
    """Run every step and compare. Return None if the database refuses a record that the Go service could store."""
    if not all(map(is_storable, case.records)):
        with pytest.raises(IntegrityError), transaction.atomic():
            CaseRun(case)
        return None
    run = CaseRun(case)
    for step, expected in case.steps:
        if not all(map(is_storable, expected["records"])):
            with pytest.raises(IntegrityError), transaction.atomic():
                run.execute(step)
            return None
        check_step(run, step, expected)
    return run


def check_step(run: CaseRun, step: Json, expected: Json) -> None:
    """Run one step and compare everything."""
    result = run.execute(step)

    assert (result.error is None) == (expected["error"] is None)
    assert result.result == result_of(expected["result"])
    assert result.requests == expected["provider_requests"]
    assert run.rows() == {record["id"]: comparable(record) for record in expected["records"]}


def is_storable(record: Json) -> bool:
    """Return whether our database accepts the record: a known status, and a time if it is to be retried."""
    if record["status"] == Status.FAILED:
        return record["next_retry_at"] is not None
    return record["status"] in Status.values


def has_no_attempts_left(run: CaseRun, row: Json) -> bool:
    """Return whether the record has no attempts left."""
    limit = row["max_attempts"] if row["max_attempts"] > 0 else run.options.max_attempts
    return bool(row["attempt_count"] >= limit)


def delay_of(run: CaseRun, row: Json) -> timedelta:
    """Return the backoff after the record's attempts."""
    return timedelta(seconds=retry_delay(row["attempt_count"], run.options))


def ids(requests: list[Json]) -> list[int]:
    """Return the ids of the records that were sent."""
    return [request["notification_id"] for request in requests]


def is_refused_by_the_database(case: Case) -> None:
    """The database refuses the record."""
    assert check_all_steps(case) is None


def no_attempts_left(case: Case) -> None:
    """A record without attempts left is not sent and becomes dead at once."""
    run = CaseRun(case)
    rows = {
        key: row for key, row in run.rows().items() if row["status"] in CLAIMABLE and has_no_attempts_left(run, row)
    }

    results = [run.execute(step) for step, _ in case.steps]

    dead = {"status": "dead", "last_error_code": "attempts_exhausted", "last_error": "no attempts left"}
    assert rows
    for key, row in rows.items():
        assert run.rows()[key] == row | dead | {"next_retry_at": None}
        assert not any(key in ids(step_result.requests) for step_result in results)
    first = results[0].result
    assert first
    if case.steps[0][0]["op"] == "handle":
        assert (first["status"], first["delivered"], first["provider_error"]) == ("dead", False, "attempts_exhausted")
    else:
        assert (first["retried"], first["dead"]) == (first["scanned"] - len(rows), len(rows))


def amended(change: Callable[[Json], Json]) -> Rule:
    """Return a rule: as the Go service, except for the columns that `change` returns for a provider's result."""

    def rule(case: Case) -> None:
        run = CaseRun(case)
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
            check_step(run, step, expected | {"result": result, "records": records})

    return rule


def stored_result(scripted: Json) -> Json:
    """The result that a provider's exception carries is stored."""
    if scripted["error"] is None or scripted["outcome"] or not trim(scripted["error_code"]):
        return {}
    return {
        "last_error_code": trim(scripted["error_code"]),
        "last_error": trim(scripted["error_message"]) or trim(scripted["error"]),
        "provider_message_id": trim(scripted["provider_message_id"]),
    }


def stored_text(scripted: Json) -> Json:
    """The text of the exception is stored if the result has no text."""
    lost = scripted["error"] and not trim(scripted["error_message"])
    return {"last_error": trim(scripted["error"])} if lost else {}


def filled_code(scripted: Json) -> Json:
    """A blank code counts as no code."""
    blank = not scripted["outcome"] and not trim(scripted["error_code"])
    return {"last_error_code": "network_error"} if blank else {}


def error_is_stored(case: Case) -> None:
    """A proven send is stored as sent; the error that came with it is stored in the attempt."""
    check_all_steps(case)

    texts = [
        trim(scripted["error_message"]) or trim(scripted["error"] or "")
        for step, expected in case.steps
        for scripted in (step.get("provider") or [])[: len(expected["provider_requests"])]
    ]
    assert texts
    assert list(DeliveryAttempt.objects.order_by("id").values_list("error", flat=True)) == texts
    assert DeliveryAttempt.objects.filter(outcome=Outcome.SUCCESS).exclude(error="").exists()


def uses_one_clock(case: Case) -> None:
    """Due time, sent time and retry time use the same clock."""
    run = CaseRun(case)
    for step, _ in case.steps:
        now = moment(step.get("sweep_now") or step["now"])
        due, before = run.due(now), run.rows()

        result = run.execute(step)

        assert ids(result.requests) == due
        for key, row in run.rows().items():
            if key not in due:
                assert row == before[key]
            elif row["status"] == Status.FAILED:
                assert row["next_retry_at"] == now + delay_of(run, row)
            elif row["status"] == Status.SENT:
                assert row["sent_at"] == now


def backoff_is_respected(case: Case) -> None:
    """A duplicate before the end of the backoff sends and changes nothing."""
    run = CaseRun(case)
    duplicates = 0
    for step, expected in case.steps:
        now = moment(step.get("sweep_now") or step["now"])
        rows = run.rows().items()
        waiting = {key: row for key, row in rows if row["status"] == Status.FAILED and row["next_retry_at"] > now}
        if not waiting and not duplicates:
            check_step(run, step, expected)
            continue
        due = run.due(now)

        result = run.execute(step)

        after = run.rows()
        assert result.result
        assert {key: after[key] for key in waiting} == waiting
        if step["op"] != "handle":
            assert ids(result.requests) == due
        elif row := waiting.get(result.result["record_id"]):
            duplicates += 1
            assert result.requests == []
            assert (result.result["reused"], result.result["delivered"]) == (True, False)
            assert result.result["next_retry_at"] == row["next_retry_at"]
    assert duplicates


def conflict(case: Case) -> None:
    """An event of another user with the same key is refused with an error."""
    run = CaseRun(case)
    refused = 0
    for step, expected in case.steps:
        before = run.rows()
        key, user = trim(step["payload"]["dedupe_key"]), step["payload"]["user_id"]
        owners = {row["user_id"] for row in before.values() if (row["channel"], row["dedupe_key"]) == ("feishu", key)}
        if owners <= {user}:
            if not refused:
                check_step(run, step, expected)
            continue

        result = run.execute(step)

        refused += 1
        assert isinstance(result.error, DedupeConflict)
        assert (result.requests, run.rows()) == ([], before)
    assert refused


def pending_is_swept(case: Case) -> None:
    """A sweep sends pending records once; a later duplicate finds them sent."""
    run = CaseRun(case)
    pending = [key for key, row in run.rows().items() if row["status"] == Status.PENDING]

    results = [run.execute(step) for step, _ in case.steps]

    sent = [key for step_result in results for key in ids(step_result.requests)]
    assert pending
    assert set(pending) <= set(ids(results[0].requests))
    assert [sent.count(key) for key in pending] == [1] * len(pending)
    assert {run.rows()[key]["status"] for key in pending} == {"sent"}


def other_channels_do_not_block(case: Case) -> None:
    """Records of other channels are not touched and do not count for the limit of the sweep."""
    run = CaseRun(case)
    before = run.rows()
    first = case.steps[0][0]
    due = run.due(moment(first.get("sweep_now") or first["now"]))

    results = [run.execute(step) for step, _ in case.steps]

    assert due
    assert ids(results[0].requests) == due[: first["limit"]]
    for key, row in run.rows().items():
        assert row["channel"] == "feishu" or row == before[key]


def nothing_stays_in_sending(case: Case) -> None:
    """No provider result leaves a record in `sending`, and the record of a lost worker is claimed again."""
    run = CaseRun(case)
    leased = {key: row for key, row in run.rows().items() if row["status"] == Status.SENDING}
    over = run.now + run.lease
    odd = False
    for step, expected in case.steps:
        script: list[Json] = step.get("provider") or []
        odd = odd or any("panic" in scripted or "response_payload_kind" in scripted for scripted in script)
        if not odd and moment(step["now"]) < over:
            check_step(run, step, expected)
            continue

        result = run.execute(step)

        rows = run.rows()
        assert not any(row["status"] == Status.SENDING for key, row in rows.items() if key not in leased)
        for key, scripted in zip(ids(result.requests), script, strict=False):
            row = rows[key]
            if "panic" in scripted:
                final = has_no_attempts_left(run, row)
                assert (row["status"], row["last_error_code"]) == ("dead" if final else "failed", "internal_error")
                assert row["next_retry_at"] == (None if final else run.now + delay_of(run, row))
            elif "response_payload_kind" in scripted:
                assert (row["status"], row["sent_at"]) == ("sent", run.now)
                assert row["provider_response"] == {"v": "nan"}
        assert all(rows[key]["status"] == Status.SENT for key in ids(result.requests)[len(script) :])

    run.execute({"op": "sweep", "now": (run.now + timedelta(days=1)).isoformat(), "limit": 1000})

    rows = run.rows()
    assert all(row["status"] in FINAL for row in rows.values() if row["channel"] == "feishu")
    for key, row in leased.items():
        if has_no_attempts_left(run, row):
            assert (rows[key]["status"], rows[key]["last_error_code"]) == ("dead", "lease_expired")
            assert rows[key]["attempt_count"] == row["attempt_count"]
        else:
            assert (rows[key]["status"], rows[key]["attempt_count"]) == ("sent", row["attempt_count"] + 1)


RULES_BY_TAG: dict[str, Rule] = {
    "attempts-used-up": no_attempts_left,  # first: if nothing is sent, the recorded provider result does not matter
    "attempt-over-limit": no_attempts_left,
    "result-discarded": amended(stored_result),
    "error-text-lost": amended(stored_text),
    "blank-code": amended(filled_code),
    "error-ignored": error_is_stored,
    "two-clocks": uses_one_clock,
    "backoff-bypass": backoff_is_respected,
    "cross-user-dedupe": conflict,
    "pending-not-swept": pending_is_swept,
    "failed-not-swept": is_refused_by_the_database,
    "starvation": other_channels_do_not_block,
    "stuck-sending": nothing_stays_in_sending,
}
"""Rules for cases in which the Go service was wrong, by tag."""
