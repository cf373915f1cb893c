"""What an attempt's result means for its record."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest
from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.claim import Claimed
from notifications.delivery.retry_policy import retry_delay
from notifications.delivery.settlement import build_settlement, decide, unsendable_result
from notifications.providers.base import ProviderError, SendRequest, SendResult, normalize_result
from notifications.states import Cause, Outcome, Status

OPTIONS = ServiceOptions(retry_base_delay=300, retry_max_delay=1800, retry_after_max=3600)
REQUEST = SendRequest(
    notification_id=1,
    user_id=42,
    trigger_id="",
    preview_id="prv-1",
    trigger_type="",
    target_type="",
    target_id=0,
    target_url="/a",
    message_text="text\n/a",
    fallback_used=False,
    attempt_count=1,
)


def claimed(
    attempt: int = 1, limit: int = 5, *, previous: Status = Status.PENDING, exhausted: bool = False, replay: int = 0
) -> Claimed:
    return Claimed(
        record_id=1,
        lease_token=str(uuid.uuid4()),
        channel="feishu",
        dedupe_key="k1",
        user_id=42,
        trace_id="",
        attempt_count=attempt,
        max_attempts=limit,
        round=replay,
        exhausted=exhausted,
        request=REQUEST,
        endpoint=None,
        previous_status=previous,
        previous_lease=None,
        lease_deadline=0.0,
    )


class TestDecide:
    @pytest.mark.parametrize(
        ("outcome", "attempt", "limit", "status", "delay"),
        [
            (Outcome.SUCCESS, 1, 5, Status.SENT, None),
            (Outcome.SUCCESS, 5, 5, Status.SENT, None),
            (Outcome.SKIPPED, 1, 5, Status.SKIPPED, None),
            (Outcome.SKIPPED, 5, 5, Status.SKIPPED, None),
            (Outcome.PERMANENT_FAIL, 1, 5, Status.DEAD, None),
            (Outcome.PERMANENT_FAIL, 5, 5, Status.DEAD, None),
            (Outcome.TEMPORARY_FAIL, 1, 5, Status.FAILED, 300),
            (Outcome.TEMPORARY_FAIL, 2, 5, Status.FAILED, 600),
            (Outcome.TEMPORARY_FAIL, 3, 5, Status.FAILED, 1200),
            (Outcome.TEMPORARY_FAIL, 4, 5, Status.FAILED, 1800),
            (Outcome.TEMPORARY_FAIL, 5, 5, Status.DEAD, None),
            (Outcome.TEMPORARY_FAIL, 6, 5, Status.DEAD, None),
            (Outcome.TEMPORARY_FAIL, 1, 1, Status.DEAD, None),
            (Outcome.LOST, 1, 5, Status.DEAD, None),
        ],
    )
    def test_the_table(self, outcome: str, attempt: int, limit: int, status: Status, delay: float | None) -> None:
        assert decide(claimed(attempt, limit), SendResult(outcome=outcome), OPTIONS) == (status, delay)

    @pytest.mark.parametrize(
        ("asked", "attempt", "delay"),
        [
            (0, 1, 300),
            (60, 1, 300),  # asking for less than the backoff changes nothing
            (900, 1, 900),
            (1800, 4, 1800),
            (3000, 4, 3000),  # asking for more than the longest backoff is believed
            (3601, 1, 3600),  # but not for ever
            (1e12, 1, 3600),
        ],
    )
    def test_what_the_provider_asked_for_is_honoured_within_bounds(
        self, asked: float, attempt: int, delay: float
    ) -> None:
        result = SendResult(outcome=Outcome.TEMPORARY_FAIL, retry_after=asked)

        assert decide(claimed(attempt), result, OPTIONS) == (Status.FAILED, delay)

    @given(st.floats(min_value=0, max_value=1e15), st.integers(1, 100))
    def test_never_sooner_than_the_backoff_and_never_later_than_both_bounds(self, asked: float, attempt: int) -> None:
        result = SendResult(outcome=Outcome.TEMPORARY_FAIL, retry_after=asked)

        _, delay = decide(claimed(attempt, 101), result, OPTIONS)

        assert delay is not None
        assert retry_delay(attempt, OPTIONS) <= delay <= max(OPTIONS.retry_max_delay, OPTIONS.retry_after_max)

    @pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.PERMANENT_FAIL, Outcome.SKIPPED])
    def test_a_final_result_waits_for_nothing(self, outcome: str) -> None:
        assert decide(claimed(), SendResult(outcome=outcome, retry_after=60), OPTIONS)[1] is None


class TestSettled:
    def test_a_sent_record_holds_no_error(self) -> None:
        result = SendResult(outcome=Outcome.SUCCESS, error_code="provider_5xx", error_message="odd")

        item = build_settlement(claimed(), result, OPTIONS, duration=1, age=2)

        assert (item.status, item.error_code, item.error) == (Status.SENT, "", "")

    def test_what_a_provider_says_is_made_fit_for_the_row(self) -> None:
        result = SendResult(
            outcome=Outcome.PERMANENT_FAIL, error_code="x" * 99, error_message="a\x00\ud800" + "b" * 5000
        )

        item = build_settlement(claimed(), result, OPTIONS, duration=1, age=2)

        assert item.error_code == "x" * 64
        assert item.error == "a\ufffd\ufffd" + "b" * 1997


class TestWithoutAttempt:
    def test_a_vanished_worker_is_told_from_a_spent_budget(self) -> None:
        vanished = unsendable_result(claimed(5, previous=Status.SENDING, exhausted=True))
        spent = unsendable_result(claimed(5, previous=Status.FAILED, exhausted=True))

        assert (vanished.outcome, vanished.error_code) == ("permanent_fail", "lease_expired")
        assert (spent.outcome, spent.error_code) == ("permanent_fail", "attempts_exhausted")


class TestCause:
    @pytest.mark.parametrize(
        ("previous", "replay", "cause"),
        [
            (Status.PENDING, 0, Cause.EVENT),
            (Status.PENDING, 1, Cause.REPLAY),
            (Status.FAILED, 0, Cause.SWEEP),
            (Status.FAILED, 1, Cause.SWEEP),
            (Status.SENDING, 0, Cause.RECOVERY),
        ],
    )
    def test_follows_from_what_the_row_was(self, previous: Status, replay: int, cause: Cause) -> None:
        assert claimed(previous=previous, replay=replay).cause == cause


class TestNormalize:
    @pytest.mark.parametrize(
        ("result", "error", "outcome", "code", "message"),
        [
            (SendResult(outcome=""), "", "temporary_fail", "network_error", ""),
            (SendResult(outcome="", error_code=" "), "eof", "temporary_fail", "network_error", "eof"),
            (SendResult(outcome="", error_code=" x "), "eof", "temporary_fail", "x", "eof"),
            (SendResult(outcome="", error_code="x", error_message=" m "), "eof", "temporary_fail", "x", "m"),
            (SendResult(outcome="delivered", error_code="x"), "", "temporary_fail", "x", ""),
            (SendResult(outcome="SUCCESS"), "", "temporary_fail", "", ""),
            (SendResult(outcome="temporary_fail"), "429", "temporary_fail", "", "429"),
            (SendResult(outcome="success"), "eof", "success", "", "eof"),
            (SendResult(outcome="skipped", error_message="off"), "eof", "skipped", "", "off"),
            (SendResult(outcome="lost"), "", "temporary_fail", "", ""),
        ],
    )
    def test_odd_answers_are_read_with_care(
        self, result: SendResult, error: str, outcome: str, code: str, message: str
    ) -> None:
        read = normalize_result(result, error)

        assert (read.outcome, read.error_code, read.error_message) == (outcome, code, message)

    def test_an_exception_can_carry_a_result(self) -> None:
        result = SendResult(outcome=Outcome.SUCCESS)

        assert ProviderError("read body: EOF", result).result is result

    @pytest.mark.parametrize("odd", [None, 7, ["om_1"]])
    @pytest.mark.parametrize("name", ["provider_message_id", "error_code", "error_message"])
    def test_a_proven_send_is_one_whatever_else_its_result_holds(self, name: str, odd: Any) -> None:
        made = dataclasses.replace(SendResult(outcome=Outcome.SUCCESS), **{name: odd})

        assert normalize_result(made).outcome == Outcome.SUCCESS
