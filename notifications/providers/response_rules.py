"""What an endpoint's answer means, as rows of a table: one reading for all providers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from notifications.providers.base import SendResult
from notifications.providers.http.client import EXCERPT_LIMIT, Answer
from notifications.states import ErrorCode, Outcome

UNMAPPED_ATTEMPTS = 3
"""Attempts after which a code without a meaning is final: it may pass by itself, and nobody knows that it does."""


class Meaning(NamedTuple):
    """What becomes of the attempt."""

    outcome: Outcome
    error_code: str
    max_attempts: int | None = None
    maybe_delivered: bool = False


SENT = Meaning(Outcome.SUCCESS, "")
BUSY = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_RATE_LIMITED)
TROUBLE = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_5XX)
UNMAPPED = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_UNMAPPED, UNMAPPED_ATTEMPTS)
CONTENT = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PAYLOAD_INVALID)
CONFIG = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_CONFIG)
AUTH = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_AUTH_FAILED)
UNKNOWN = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_TIMEOUT, maybe_delivered=True)
"""Neither repeated nor given up for sent: a person finds out whether it arrived."""


class Code(NamedTuple):
    """A row by the code in the body. Of several rows with one code the first whose message is found counts."""

    code: int
    message: str
    """Regular expression that is looked for in the answer's message; blank for any."""
    meaning: Meaning
    todo: str
    """What a person does about it, said in the attempt's error; blank where nothing is to be done."""
    source: str
    """Entrance and how sure: H official text seen, M several programs agree, L one source."""


class Status(NamedTuple):
    """A row by the HTTP status, for answers whose body holds no code."""

    first: int
    last: int
    meaning: Meaning
    todo: str = ""
    firm: bool = True
    """Whether it also decides for a code in the body that has no row."""


# fmt: off
STATUSES = (
    # The Go service's classes. Not firm: a code in the body that has no row is unmapped all the same.
    Status(200, 299, SENT, firm=False),
    Status(401, 401, AUTH),
    Status(403, 403, AUTH),
    Status(429, 429, BUSY),
    Status(500, 599, TROUBLE),
    Status(100, 999, CONTENT, firm=False),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one answer means, and the vendor's code if no row has it."""

    meaning: Meaning
    todo: str
    unmapped: str = ""


class Table:
    """Rows, looked up in constant time.

    codes: none where a body's code says nothing. statuses: the first that fits counts; together they cover all.
    """

    def __init__(self, codes: Iterable[Code], statuses: Iterable[Status]) -> None:
        self.codes = tuple(codes)
        self.statuses = tuple(statuses)
        self._by_code: dict[int, list[tuple[re.Pattern[str], Verdict]]] = {}
        for row in self.codes:
            pattern = re.compile(row.message, re.IGNORECASE)
            self._by_code.setdefault(row.code, []).append((pattern, Verdict(row.meaning, row.todo)))
        self._by_status: dict[int, tuple[Verdict, bool]] = {}
        for status in reversed(self.statuses):
            entry = Verdict(status.meaning, status.todo), status.firm
            self._by_status |= dict.fromkeys(range(status.first, status.last + 1), entry)

    def find(self, code: int, message: str, status: int) -> Verdict:
        """Return what an answer means. code: of the body, 0 for success or none."""
        by_status, firm = self._by_status[status]
        if not code or not self._by_code:
            return by_status
        for pattern, verdict in self._by_code.get(code, ()):
            if pattern.search(message):
                return verdict
        return by_status if firm else Verdict(UNMAPPED, "", str(code)[:32])


def judge(answer: Answer, payload: Any, table: Table) -> SendResult:
    """Return the result of an answer by the provider's table; what asked us to wait is in the headers."""
    body = _json(answer)
    code, message = _code_and_message(body)
    verdict = table.find(code, message, answer.status)
    meaning = verdict.meaning
    text = "" if meaning is SENT else _text(code if table.codes else 0, message, answer.status, verdict.todo)
    return SendResult(
        outcome=meaning.outcome,
        error_code=meaning.error_code,
        error_message=text,
        request_payload=payload,
        response_payload=body if body is not None else (answer.text[:EXCERPT_LIMIT] or None),
        http_status=answer.status,
        response_excerpt=answer.text[:EXCERPT_LIMIT],
        retry_after=answer.retry_after,
        max_attempts=meaning.max_attempts,
        maybe_delivered=meaning.maybe_delivered,
        unmapped=verdict.unmapped,
    )


def code_of(answer: Answer | SendResult) -> int:
    """Return the failure code in an answer's body; 0 for success, none, or no answer."""
    return _code_and_message(_json(answer))[0] if isinstance(answer, Answer) else 0


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.text)
    except (ValueError, RecursionError):
        return None


def _code_and_message(body: Any) -> tuple[int, str]:
    """Return the failure code of a body, 0 for success or none, and its message; -1 for a code that is no number."""
    if not isinstance(body, dict):
        return 0, ""
    code = body.get("code", body.get("StatusCode", 0))
    if isinstance(code, str) and re.fullmatch(r"-?\d{1,18}", code):
        code = int(code)
    message = body.get("msg") or body.get("StatusMessage") or ""
    if not isinstance(code, int):
        code = -1 if code else 0  # a code we cannot even read is no success
    return code, str(message)[:200]


def _text(code: int, message: str, status: int, todo: str) -> str:
    text = f"code {code}" if code else f"HTTP {status}"
    if code and message:
        text += f": {message}"
    return f"{text} ({todo})" if todo else text
