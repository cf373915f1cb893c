"""What an endpoint's response means, as tables of rules. All webhook providers interpret responses here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from notifications.providers.base import SendResult
from notifications.providers.http.client import MAX_EXCERPT_LENGTH, HttpResponse
from notifications.states import ErrorCode, Outcome

UNMAPPED_MAX_ATTEMPTS = 3
"""Attempts after which a code without a rule is final. The failure may be temporary, but that is not known."""


class Meaning(NamedTuple):
    """The result of an attempt that a rule stands for."""

    outcome: Outcome
    error_code: str
    max_attempts: int | None = None
    maybe_delivered: bool = False


SENT = Meaning(Outcome.SUCCESS, "")
RATE_LIMITED = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_RATE_LIMITED)
SERVER_ERROR = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_5XX)
UNMAPPED_CODE = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_UNMAPPED, UNMAPPED_MAX_ATTEMPTS)
MESSAGE_REFUSED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PAYLOAD_INVALID)
ENDPOINT_CONFIG = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_CONFIG)
AUTH_FAILED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_AUTH_FAILED)
OUTCOME_UNKNOWN = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_TIMEOUT, maybe_delivered=True)
"""The endpoint is still sending the message. A person must check whether it arrived, so it is not retried."""


class CodeRule(NamedTuple):
    """A rule for the error code in a response body.

    If several rules have one code, the first whose `message` is found in the response's message applies.
    """

    code: int
    message: str
    """Regular expression, case-insensitive; blank for any message."""
    meaning: Meaning
    remedy: str
    """What a person must do; part of the attempt's error text. Blank if there is nothing to do."""
    source: str
    """Where the rule comes from: a page of the vendor, or another program."""


class StatusRule(NamedTuple):
    """A rule for a range of HTTP statuses. It applies if no CodeRule does."""

    first: int
    last: int
    """Last status of the range, inclusive."""
    meaning: Meaning
    remedy: str = ""
    applies_to_unmapped: bool = True
    """True if the rule also applies when the body has an error code without a rule."""


# fmt: off
STATUS_RULES = (
    # The classes of the Go service.
    StatusRule(200, 299, SENT, applies_to_unmapped=False),
    StatusRule(401, 401, AUTH_FAILED),
    StatusRule(403, 403, AUTH_FAILED),
    StatusRule(429, 429, RATE_LIMITED),
    StatusRule(500, 599, SERVER_ERROR),
    StatusRule(100, 999, MESSAGE_REFUSED, applies_to_unmapped=False),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """What one response means."""

    meaning: Meaning
    remedy: str
    unmapped: str = ""
    """The vendor's error code, if no rule has it."""


class RuleTable:
    """The rules of one vendor, indexed for lookup in constant time.

    Args:
        codes: Rules for the error codes in response bodies; empty if the vendor's bodies have none.
        statuses: Rules for HTTP statuses. The first that contains the status applies. Together they must cover 100 to
            999.
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
            entry = RuleMatch(status.meaning, status.remedy), status.applies_to_unmapped
            self._by_status |= dict.fromkeys(range(status.first, status.last + 1), entry)

    def find(self, code: int, message: str, status: int) -> RuleMatch:
        """Return what a response means.

        Args:
            code: Error code in the body; 0 for success or no code.
            message: Message in the body.
            status: HTTP status, 100 to 999.
        """
        status_match, applies_to_unmapped = self._by_status[status]
        if not code or not self._by_code:
            return status_match
        for pattern, match in self._by_code.get(code, ()):
            if pattern.search(message):
                return match
        return status_match if applies_to_unmapped else RuleMatch(UNMAPPED_CODE, "", str(code)[:32])


def interpret_response(response: HttpResponse, payload: Any, table: RuleTable) -> SendResult:
    """Return the result that a response means.

    Args:
        response: The endpoint's response. The time to wait comes from its headers.
        payload: The JSON value that was sent; kept with the result.
        table: The rules of the provider.
    """
    body = _parse_json(response)
    code, message = _find_code_and_message(body)
    match = table.find(code, message, response.status)
    meaning = match.meaning
    error = "" if meaning is SENT else _error_text(code if table.codes else 0, message, response.status, match.remedy)
    return SendResult(
        outcome=meaning.outcome,
        error_code=meaning.error_code,
        error_message=error,
        request_payload=payload,
        response_payload=body if body is not None else (response.text[:MAX_EXCERPT_LENGTH] or None),
        http_status=response.status,
        response_excerpt=response.text[:MAX_EXCERPT_LENGTH],
        retry_after=response.retry_after,
        max_attempts=meaning.max_attempts,
        maybe_delivered=meaning.maybe_delivered,
        unmapped=match.unmapped,
    )


def failure_code(response: HttpResponse | SendResult) -> int:
    """Return the error code in a response body; 0 for success, no code, or a result instead of a response."""
    return _find_code_and_message(_parse_json(response))[0] if isinstance(response, HttpResponse) else 0


def _parse_json(response: HttpResponse) -> Any:
    try:
        return json.loads(response.text)
    except (ValueError, RecursionError):
        return None


def _find_code_and_message(body: Any) -> tuple[int, str]:
    """Return the error code and the message of a body. 0: success or no code. -1: a code that is not a number."""
    if not isinstance(body, dict):
        return 0, ""
    code = body.get("code", body.get("StatusCode", 0))
    if isinstance(code, str) and re.fullmatch(r"-?\d{1,18}", code):
        code = int(code)
    message = body.get("msg") or body.get("StatusMessage") or ""
    if not isinstance(code, int):
        code = -1 if code else 0  # a code that cannot be read is not a success
    return code, str(message)[:200]


def _error_text(code: int, message: str, status: int, remedy: str) -> str:
    text = f"code {code}" if code else f"HTTP {status}"
    if code and message:
        text += f": {message}"
    return f"{text} ({remedy})" if remedy else text
