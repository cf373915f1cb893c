"""The recorded cases of the Go service, and our service to run them on."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.db import connection

from notifications.conf import service_options
from notifications.ingest.validation import InvalidNotification
from notifications.models import NotificationRecord
from notifications.providers.base import ProviderError, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from notifications.states import FINAL, Status

Json = dict[str, Any]
Step = tuple[Json, Json]
"""The input of a step, and the recorded result of the Go service."""

SHARED_COLUMNS = (
    *("id", "channel", "user_id", "trigger_id", "preview_id", "trigger_type", "target_type", "target_id"),
    *("dedupe_key", "target_url", "summary_text", "fallback_text", "fallback_used", "trace_id"),
    *("status", "attempt_count", "max_attempts"),
)
"""Columns with the same values as in the Go service."""
TEXT_COLUMNS = ("last_error_code", "last_error", "provider_message_id")
"""Text columns that are null in the Go service's table and empty in ours."""


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    file: str
    name: str
    tags: frozenset[str]
    given: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.file}/{self.name}"

    @property
    def steps(self) -> list[Step]:
        """The steps of the case. A file that records one event has one step."""
        if "steps" in self.given:
            return list(zip(self.given["steps"], self.expected["steps"], strict=True))
        step = {"op": "handle"} | {name: self.given[name] for name in ("now", "payload", "provider")}
        return [(step, self.expected | {"records": [self.expected["record"]]})]

    @property
    def records(self) -> list[Json]:
        """The records that exist before the first step."""
        if "steps" in self.given:
            return self.given["initial_records"] or []
        return [self.given["record"]]


def read_cases(folder: Path) -> Iterator[Case]:
    """Yield every case of every file in the folder. Raises FileNotFoundError if the folder has no file."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"no vectors in {folder}")
    for path in files:
        for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
            yield Case(path.stem, case["name"], frozenset(case.get("tags", ())), case["in"], case["out"])


@dataclass
class StepResult:
    """The result of a step in our service."""

    result: Json | None
    requests: list[Json]
    error: InvalidNotification | None = None


class CaseRun:
    """Our service on PostgreSQL, with the records, the clock and the scripted provider of a case.

    Raises IntegrityError if the database refuses one of the records.
    """

    def __init__(self, case: Case) -> None:
        self.now = moment(case.steps[0][0]["now"])
        self.provider = MemoryProvider()
        self.options = dataclasses.replace(
            service_options(),
            send_slots=1,  # one send at a time, like the Go service
            **{name.removesuffix("_seconds"): value for name, value in case.given["options"].items()},
        )
        self.service = NotificationService(
            options=self.options, clock=lambda: self.now, providers={"feishu": self.provider}
        )
        self.lease = timedelta(seconds=self.options.lease)
        for record in case.records:
            NotificationRecord.objects.create(**self._columns(record))

    def execute(self, step: Json) -> StepResult:
        """Run one step."""
        self.now = moment(step["now"])
        self.provider.script(*map(provider_result, step.get("provider") or ()))
        before = len(self.provider.requests)
        _reset_id_sequence()
        try:
            outcome = StepResult(self._do(step), [])
        except InvalidNotification as error:
            outcome = StepResult(None, [], error)
        outcome.requests = [request.as_payload() for request in self.provider.requests[before:]]
        return outcome

    def rows(self) -> dict[int, Json]:
        """Return the comparable columns of every record, by id."""
        return {row.pk: _comparable_row(row) for row in NotificationRecord.objects.all()}

    def due(self, at: datetime) -> list[int]:
        """Return the ids that a sweep at this time claims, in order."""
        rows = NotificationRecord.objects.filter(channel="feishu", next_attempt_at__lte=at).order_by(
            "next_attempt_at", "id"
        )
        return list(rows.values_list("id", flat=True))

    def _do(self, step: Json) -> Json | None:
        at = moment(step["sweep_now"]) if step.get("sweep_now") else None
        match step["op"]:
            case "handle":
                return dataclasses.asdict(self.service.handle_feishu_requested(step["payload"]))
            case "sweep":
                counts = dataclasses.asdict(self.service.retry_feishu_notifications(at, step["limit"]))
                del counts["sends"]  # not one of the Go service's counters
                del counts["has_more"]
                return counts
            case "retry_due":
                return {"retried": self.service.retry_due(at, step["limit"])}
            case "set":
                row = NotificationRecord.objects.get(pk=step["id"])
                changed = _as_go(row) | step["fields"]
                NotificationRecord.objects.filter(pk=row.pk).update(**self._columns(changed))
                return None
        raise ValueError(f"unknown step {step['op']!r}")

    def _columns(self, record: Json) -> Json:
        """Return our columns for a record of the Go service, at the time of the clock."""
        due = record["next_retry_at"] and moment(record["next_retry_at"])
        if record["status"] == Status.SENDING:
            due = self.now + self.lease  # another worker sends it, as the Go service always assumes
        elif record["status"] == Status.PENDING:
            due = due or self.now
        elif record["status"] in FINAL:
            due = None
        return {
            **{name: record[name] for name in SHARED_COLUMNS},
            **{name: record[name] or "" for name in TEXT_COLUMNS},
            "provider_request": parsed(record["provider_request_json"]),
            "provider_response": parsed(record["provider_response_json"]),
            "sent_at": record["sent_at"] and moment(record["sent_at"]),
            "next_attempt_at": due,
            "lease_token": uuid.uuid4() if record["status"] == Status.SENDING else None,
        }


def moment(text: str) -> datetime:
    """Return the time in an RFC 3339 text."""
    return datetime.fromisoformat(text)


def parsed(text: str | None) -> Any:
    """Return the value of a JSON text, or None."""
    return None if text is None else json.loads(text)


def provider_result(scripted: Json) -> SendResult | Exception:
    """Return the result or exception of our provider for a recorded one of the Go service's provider."""
    if "panic" in scripted:
        return RuntimeError(scripted["panic"])
    names = (*("outcome", "provider_message_id", "error_code", "error_message"), "request_payload", "response_payload")
    result = SendResult(**{name: scripted[name] for name in names})
    if scripted.get("response_payload_kind") == "unserializable":
        result = dataclasses.replace(result, response_payload={"v": float("nan")})
    return result if scripted["error"] is None else ProviderError(scripted["error"], result)


def comparable(record: Json) -> Json:
    """Return the comparable columns of a record of the Go service."""
    due = record["next_retry_at"] if record["status"] == Status.FAILED else None
    return {
        **{name: record[name] for name in SHARED_COLUMNS},
        **{name: record[name] or "" for name in TEXT_COLUMNS},
        "provider_request": parsed(record["provider_request_json"]),
        "provider_response": parsed(record["provider_response_json"]),
        "sent_at": record["sent_at"] and moment(record["sent_at"]),
        "next_retry_at": due and moment(due),
    }


def result_of(expected: Json | None) -> Json | None:
    """Return the Go service's result with its time parsed."""
    if not expected or not expected.get("next_retry_at"):
        return expected
    due = moment(expected["next_retry_at"]) if expected["status"] == Status.FAILED else None
    return expected | {"next_retry_at": due}


def _comparable_row(row: NotificationRecord) -> Json:
    next_retry_at = row.next_attempt_at if row.status == Status.FAILED or row.status in FINAL else None
    names = (*SHARED_COLUMNS, *TEXT_COLUMNS, "provider_request", "provider_response", "sent_at")
    return {name: getattr(row, name) for name in names} | {"next_retry_at": next_retry_at}


def _as_go(row: NotificationRecord) -> Json:
    return {
        **{name: getattr(row, name) for name in (*SHARED_COLUMNS, *TEXT_COLUMNS)},
        "provider_request_json": json.dumps(row.provider_request),
        "provider_response_json": json.dumps(row.provider_response),
        "sent_at": row.sent_at and row.sent_at.isoformat(),
        "next_retry_at": row.next_attempt_at and row.next_attempt_at.isoformat(),
    }


def _reset_id_sequence() -> None:
    """Let the next new record have the id after the last one, as in the Go service's store."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('notification_records', 'id'), COALESCE(max(id), 0) + 1, false)"
            " FROM notification_records"
        )
