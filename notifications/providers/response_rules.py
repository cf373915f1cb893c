"""What an endpoint's response means, as tables of rules. All webhook providers interpret responses here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from notifications.providers.base import SendResult
from notifications.providers.http.messages import MAX_EXCERPT_LENGTH, HttpResponse
from notifications.states import ErrorCode, Outcome

UNMAPPED_MAX_ATTEMPTS = 3
"""Attempts after which a code without a rule is final. The failure may be temporary, but that is not known."""
_PAGE_TAGS = re.compile(r"<(!doctype|html|head|title|meta|body|script|form)\b", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[a-z!/]", re.IGNORECASE)
_CODE_FIELD = re.compile(r"[\"'](code|StatusCode)\\?[\"']\s*:", re.IGNORECASE)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f]")


class Meaning(NamedTuple):
    """The result of an attempt that a rule stands for."""

    outcome: Outcome
    error_code: str
    max_attempts: int | None = None
    maybe_delivered: bool = False
    project_at_fault: bool = False
    holds_endpoint: bool = False


SENT = Meaning(Outcome.SUCCESS, "")
RATE_LIMITED = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_RATE_LIMITED)
SERVER_ERROR = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_5XX)
UNMAPPED_CODE = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_UNMAPPED, UNMAPPED_MAX_ATTEMPTS)
MESSAGE_REFUSED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PAYLOAD_INVALID)
ENDPOINT_CONFIG = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_CONFIG)
AUTH_FAILED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_AUTH_FAILED)
CLOCK_REFUSED = Meaning(
    Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_AUTH_FAILED, project_at_fault=True, holds_endpoint=True
)
"""Our clock is wrong, so no signature is accepted. A message is sent when the clock is right again."""
UNREADABLE = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_UNMAPPED, UNMAPPED_MAX_ATTEMPTS, maybe_delivered=True)
"""A 2xx response that cannot be the vendor's, so it does not prove that the message was accepted."""
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
    body: str = ""
    """Regular expression for the body, case-insensitive; blank for any body."""
    needs_retry_after: bool = False
    """True if the rule applies only when the endpoint asked us to wait. Such rules and those with `body` go first."""


# fmt: off
RETRIED_STATUSES = (
    # Statuses that ask for the same request once more.
    StatusRule(408, 408, SERVER_ERROR),   # Request Timeout: RFC 9110, section 15.5.9
    StatusRule(413, 413, SERVER_ERROR, needs_retry_after=True),  # temporary with Retry-After: RFC 9110, section 15.5.14
    StatusRule(421, 421, SERVER_ERROR),   # Misdirected Request, over another connection: RFC 9110, section 15.5.20
    StatusRule(425, 425, SERVER_ERROR),   # Too Early: RFC 8470, section 5.2
    StatusRule(429, 429, RATE_LIMITED),   # Too Many Requests: RFC 6585, section 4
    StatusRule(500, 599, SERVER_ERROR),   # RFC 9110, section 15.6
)
STATUS_RULES = (
    # The classes of the Go service, which did not repeat 408, 421 and 425.
    StatusRule(200, 299, SENT, applies_to_unmapped=False),
    StatusRule(401, 401, AUTH_FAILED),
    StatusRule(403, 403, AUTH_FAILED),
    *RETRIED_STATUSES,
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
        narrow = [rule for rule in self.statuses if rule.body or rule.needs_retry_after]
        self._narrow = tuple((rule, re.compile(rule.body, re.IGNORECASE)) for rule in narrow)
        for status in reversed([rule for rule in self.statuses if rule not in narrow]):
            entry = RuleMatch(status.meaning, status.remedy), status.applies_to_unmapped
            self._by_status |= dict.fromkeys(range(status.first, status.last + 1), entry)

    def find(self, code: int, message: str, status: int, response: HttpResponse | None = None) -> RuleMatch:
        """Return what a response means.

        Args:
            code: Error code in the body; 0 for success or no code.
            message: Message in the body.
            status: HTTP status, 100 to 999.
            response: The response, for the rules that read more of it; None if such rules do not matter.
        """
        status_match, applies_to_unmapped = self._by_status[status]
        for rule, words in self._narrow:
            if response and rule.first <= status <= rule.last and _is_narrowed_to(response, rule, words):
                status_match, applies_to_unmapped = RuleMatch(rule.meaning, rule.remedy), rule.applies_to_unmapped
                break
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
    match = table.find(code, message, response.status, response)
    if match.meaning is SENT and table.codes and (remedy := _unreadable(response, body)):
        match = RuleMatch(UNREADABLE, remedy)
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
        project_at_fault=meaning.project_at_fault,
        holds_endpoint=meaning.holds_endpoint,
        unmapped=match.unmapped,
    )


def _is_narrowed_to(response: HttpResponse, rule: StatusRule, words: re.Pattern[str]) -> bool:
    return (response.retry_after > 0 or not rule.needs_retry_after) and bool(words.search(response.text))


def failure_code(response: HttpResponse | SendResult) -> int:
    """Return the error code in a response body; 0 for success, no code, or a result instead of a response."""
    return _find_code_and_message(_parse_json(response))[0] if isinstance(response, HttpResponse) else 0


def _parse_json(response: HttpResponse) -> Any:
    try:
        value = json.loads(response.text)
        # Some gateways encode the vendor's JSON once more, as a string.
        return json.loads(value) if isinstance(value, str) and value.lstrip()[:1] == "{" else value
    except (ValueError, RecursionError):
        return None


def _unreadable(response: HttpResponse, body: Any) -> str:
    """Return why a 2xx response cannot be the vendor's, or an empty string.

    The vendor answers with JSON. The Go service also took an empty body, a word such as "ok" and JSON without a code
    for a success. A web page comes from something in between, for example the login page of a proxy.
    """
    if response.unknown_coding:
        return f"the response has the coding {response.unknown_coding}, which cannot be read"
    if body is not None:
        return ""
    text = response.text.lstrip()
    tags = _ANY_TAG if "html" in response.headers.get("content-type", "").lower() else _PAGE_TAGS
    if text[:1] == "<" or tags.search(text):
        return "the response is a web page, perhaps of a proxy"
    if text[:1] in ("{", "[") or _CODE_FIELD.search(text):
        return "the response is not complete JSON"
    if _CONTROL_CHARACTERS.search(text):
        return "the response is not text"
    return ""


def _find_code_and_message(body: Any) -> tuple[int, str]:
    """Return the error code and the message of a body. 0: success or no code. -1: a code that is not a number."""
    if not isinstance(body, dict):
        return 0, ""
    # Older bots have StatusCode, and some gateways send both names, one of them without a value.
    fields = {name.lower(): value for name, value in body.items()}  # Go's JSON reader takes names in any case
    codes = [code for code in map(_read_code, (fields.get("code"), body.get("StatusCode"))) if code is not None]
    message = fields.get("msg") or body.get("StatusMessage") or fields.get("message") or ""
    return codes[0] if codes else 0, str(message)[:200]


def _read_code(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,18}(\.0+)?\s*", value):
        return int(value.partition(".")[0])
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    if isinstance(value, str):
        value = value.strip()
    return -1 if value else None  # a code that cannot be read is not a success


def _error_text(code: int, message: str, status: int, remedy: str) -> str:
    text = f"code {code}" if code else f"HTTP {status}"
    if code and message:
        text += f": {message}"
    return f"{text} ({remedy})" if remedy else text
