"""What an endpoint's answer means, as rows of a table: one reading for all providers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from notifications.providers.base import SendResult
from notifications.providers.http.client import MAX_EXCERPT_LENGTH, HttpResponse
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
RATE_LIMITED = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_RATE_LIMITED)
SERVER_ERROR = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_5XX)
UNMAPPED_CODE = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_UNMAPPED, UNMAPPED_ATTEMPTS)
MESSAGE_REFUSED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PAYLOAD_INVALID)
ENDPOINT_CONFIG = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_CONFIG)
AUTH_FAILED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_AUTH_FAILED)
OUTCOME_UNKNOWN = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_TIMEOUT, maybe_delivered=True)
"""Neither repeated nor given up for sent: a person finds out whether it arrived."""


class CodeRule(NamedTuple):
    """A row by the code in the body. Of several rows with one code the first whose message is found counts."""

    code: int
    message: str
    """Regular expression that is looked for in the answer's message; blank for any."""
    meaning: Meaning
    remedy: str
    """What a person does about it, said in the attempt's error; blank where nothing is to be done."""
    source: str
    """Entrance and how sure: H official text seen, M several programs agree, L one source."""


class StatusRule(NamedTuple):
    """A row by the HTTP status, for answers whose body holds no code."""

    first: int
    last: int
    meaning: Meaning
    remedy: str = ""
    firm: bool = True
    """Whether it also decides for a code in the body that has no row."""


# fmt: off
STATUS_RULES = (
    # The Go service's classes. Not firm: a code in the body that has no row is unmapped all the same.
    StatusRule(200, 299, SENT, firm=False),
    StatusRule(401, 401, AUTH_FAILED),
    StatusRule(403, 403, AUTH_FAILED),
    StatusRule(429, 429, RATE_LIMITED),
    StatusRule(500, 599, SERVER_ERROR),
    StatusRule(100, 999, MESSAGE_REFUSED, firm=False),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """What one answer means, and the vendor's code if no row has it."""

    meaning: Meaning
    remedy: str
    unmapped: str = ""


class RuleTable:
    """Rows, looked up in constant time.

    codes: none where a body's code says nothing. statuses: the first that fits counts; together they cover all.
    """

    def __init__(self, codes: Iterable[CodeRule], statuses: Iterable[StatusRule]) -> None:
        self.codes = tuple(codes)
        self.statuses = tuple(statuses)
        self._by_code: dict[int, list[tuple[re.Pattern[str], RuleMatch]]] = {}
        for row in self.codes:
            pattern = re.compile(row.message, re.IGNORECASE)
            self._by_code.setdefault(row.code, []).append((pattern, RuleMatch(row.meaning, row.remedy)))
        self._by_status: dict[int, tuple[RuleMatch, bool]] = {}
        for status in reversed(self.statuses):
            entry = RuleMatch(status.meaning, status.remedy), status.firm
            self._by_status |= dict.fromkeys(range(status.first, status.last + 1), entry)

    def find(self, code: int, message: str, status: int) -> RuleMatch:
        """Return what an answer means. code: of the body, 0 for success or none."""
        by_status, firm = self._by_status[status]
        if not code or not self._by_code:
            return by_status
        for pattern, match in self._by_code.get(code, ()):
            if pattern.search(message):
                return match
        return by_status if firm else RuleMatch(UNMAPPED_CODE, "", str(code)[:32])


def interpret_response(answer: HttpResponse, payload: Any, table: RuleTable) -> SendResult:
    """Return the result of an answer by the provider's table; what asked us to wait is in the headers."""
    body = _json(answer)
    code, message = _code_and_message(body)
    match = table.find(code, message, answer.status)
    meaning = match.meaning
    text = "" if meaning is SENT else _text(code if table.codes else 0, message, answer.status, match.remedy)
    return SendResult(
        outcome=meaning.outcome,
        error_code=meaning.error_code,
        error_message=text,
        request_payload=payload,
        response_payload=body if body is not None else (answer.text[:MAX_EXCERPT_LENGTH] or None),
        http_status=answer.status,
        response_excerpt=answer.text[:MAX_EXCERPT_LENGTH],
        retry_after=answer.retry_after,
        max_attempts=meaning.max_attempts,
        maybe_delivered=meaning.maybe_delivered,
        unmapped=match.unmapped,
    )


def failure_code(answer: HttpResponse | SendResult) -> int:
    """Return the failure code in an answer's body; 0 for success, none, or no answer."""
    return _code_and_message(_json(answer))[0] if isinstance(answer, HttpResponse) else 0


def _json(answer: HttpResponse) -> Any:
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


def _text(code: int, message: str, status: int, remedy: str) -> str:
    text = f"code {code}" if code else f"HTTP {status}"
    if code and message:
        text += f": {message}"
    return f"{text} ({remedy})" if remedy else text
