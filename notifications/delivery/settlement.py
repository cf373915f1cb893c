"""Settlement: what the result of an attempt means for its record. No clock, no database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from notifications.conf import ServiceOptions
from notifications.content.sanitize import clean_text
from notifications.delivery.claim import Claimed
from notifications.delivery.retry_policy import add_jitter, retry_delay
from notifications.providers.base import MAY_HAVE_ARRIVED, SendResult
from notifications.states import Cause, ErrorCode, HoldReason, Outcome, Status

HOLD_RECHECK_SECONDS = 3600.0
"""Seconds until a held record is checked again. Its channel usually releases it earlier."""

HOLD_AFTER_RATE_LIMITS = 3
"""Answers in a row that ask us to slow down, after which the records of the endpoint are held."""

OWNER_CODES = (ErrorCode.PROVIDER_CONFIG, ErrorCode.PROVIDER_AUTH_FAILED)
"""Permanent failures that are caused by the endpoint's settings, not by the message: an address, a token, a bot."""

MAX_ERROR_LENGTH = 2000
"""Characters of an error text that are stored, as in the Go service."""


@dataclass(slots=True, kw_only=True)
class Settlement:
    """The end of one attempt: the claimed record, the provider's result, and the record's next state."""

    row: Claimed
    result: SendResult
    status: Status
    delay: float | None
    """Seconds until the next attempt; None for a final status."""
    error_code: str
    error: str
    duration: float
    """Seconds that the attempt took; 0 if nothing was sent."""
    age: float
    """Seconds since the attempt began."""
    hold_reason: str = ""
    """A `HoldReason` if the record is held for its channel."""
    probe_delay: float = 0.0
    """Seconds for which the endpoint takes no message: the record's backoff, or what the endpoint asked for."""

    def without_provider_data(self) -> Settlement:
        """Return a copy without the provider's payloads and texts, which PostgreSQL can store in any case."""
        result = SendResult(outcome=self.result.outcome, error_code=self.error_code, error_message=self.error)
        return replace(self, result=result)


def decide(row: Claimed, result: SendResult, options: ServiceOptions) -> tuple[Status, float | None]:
    """Decide the next status of a record. The rules are the Go service's, except for held records.

    Args:
        row: The claimed record.
        result: The normalized result of the attempt.
        options: For the backoff and for the longest delay that an endpoint may ask for.

    Returns:
        The status, and the seconds until the next attempt (None if the status is final).
    """
    allowed = min(row.max_attempts, result.max_attempts or row.max_attempts)
    match result.outcome:
        case Outcome.SUCCESS:
            return Status.SENT, None
        case Outcome.SKIPPED:
            return Status.SKIPPED, None
        case Outcome.PERMANENT_FAIL if _is_held_for_channel(row, result):
            return Status.FAILED, HOLD_RECHECK_SECONDS
        case Outcome.TEMPORARY_FAIL if row.attempt_count < allowed or is_held_for_endpoint(row, result):
            requested = min(result.retry_after, options.retry_after_max)
            return Status.FAILED, max(retry_delay(row.attempt_count, options), requested)
        case _:
            return Status.DEAD, None


def needs_owner(result: SendResult) -> bool:
    """Return whether the owner of the endpoint must correct it: its channel is paused, and its records are held.

    Args:
        result: The normalized result of an attempt.
    """
    refused = result.outcome == Outcome.PERMANENT_FAIL and result.error_code in OWNER_CODES
    return refused and not result.project_at_fault


def is_held_for_endpoint(row: Claimed, result: SendResult) -> bool:
    """Return whether a record is held because its endpoint takes no message now.

    It is sent when the endpoint takes messages again, so it is not dead even if this was its last attempt. A record
    with one attempt, such as a test message, is never held.

    Args:
        row: The claimed record.
        result: The normalized result of the attempt.
    """
    if result.outcome != Outcome.TEMPORARY_FAIL or row.channel_id is None or row.max_attempts <= 1:
        return False
    limited = result.error_code == ErrorCode.PROVIDER_RATE_LIMITED and row.failures + 1 >= HOLD_AFTER_RATE_LIMITS
    return result.holds_endpoint or limited


def _is_held_for_channel(row: Claimed, result: SendResult) -> bool:
    """The endpoint's settings are wrong, not the message: it is sent when the channel is resumed."""
    return needs_owner(result) and row.channel_id is not None and row.attempt_count < row.max_attempts


def build_settlement(
    row: Claimed,
    result: SendResult,
    options: ServiceOptions,
    *,
    duration: float,
    age: float,
    peak_clock: datetime | None = None,
) -> Settlement:
    """Return the settlement of an attempt, with texts that fit their columns.

    Args:
        row: The claimed record.
        result: The normalized result of the attempt.
        options: For the backoff and its jitter.
        duration: Seconds that the attempt took.
        age: Seconds since the attempt began.
        peak_clock: The current time, if a retry must avoid full and half hours; else None.
    """
    status, delay = decide(row, result, options)
    if delay is not None and result.outcome == Outcome.TEMPORARY_FAIL:
        delay = add_jitter(delay, options, peak_clock=peak_clock)
    probe_delay = delay or 0.0
    hold_reason = ""
    if status == Status.FAILED and result.outcome == Outcome.PERMANENT_FAIL:
        hold_reason = HoldReason.CHANNEL_PAUSED
    elif is_held_for_endpoint(row, result):
        hold_reason, delay = HoldReason.ENDPOINT_FAILING, HOLD_RECHECK_SECONDS
    sent = status == Status.SENT
    return Settlement(
        row=row,
        result=result,
        status=status,
        delay=delay,
        error_code="" if sent else clean_text(result.error_code, 64),
        error="" if sent else clean_text(result.error_message, MAX_ERROR_LENGTH),
        duration=duration,
        age=age,
        hold_reason=hold_reason,
        probe_delay=probe_delay,
    )


def unsendable_result(row: Claimed) -> SendResult:
    """Return the result for a claimed record that may not be sent: see `Claimed.unsendable`."""
    if not row.exhausted:
        return SendResult(
            outcome=Outcome.SKIPPED, error_code=ErrorCode.USER_INACTIVE, error_message="the user is inactive"
        )
    if row.message_expired:
        text = "it expired before it could be sent"
        if row.cause == Cause.RECOVERY:
            text += "; the worker of the last attempt was lost, and the message may have arrived"
        return SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.EXPIRED, error_message=text)
    if row.cause == Cause.RECOVERY:
        return SendResult(
            outcome=Outcome.PERMANENT_FAIL,
            error_code=ErrorCode.LEASE_EXPIRED,
            error_message=f"the worker of the last attempt was lost; {MAY_HAVE_ARRIVED}",
        )
    return SendResult(
        outcome=Outcome.PERMANENT_FAIL,
        error_code=ErrorCode.ATTEMPTS_EXHAUSTED,
        error_message="no attempts left",
    )
