"""A settlement: what the result of an attempt means for its record."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.retry_policy import retry_delay
from notifications.delivery.settlement import build_settlement, decide, unsendable_result
from notifications.providers.attempt import normalize_result
from notifications.providers.base import ProviderError, SendResult
from notifications.states import Cause, Outcome, Status
from tests.support.claims import make_claim

OPTIONS = ServiceOptions(retry_base_delay=300, retry_max_delay=1800, retry_after_max=3600)


class TestDecide:
    def test_outcome_and_attempts_decide_status_and_delay(self) -> None:
        decisions = {
            (Outcome.SUCCESS, 1, 5): (Status.SENT, None),
            (Outcome.SUCCESS, 5, 5): (Status.SENT, None),
            (Outcome.SKIPPED, 1, 5): (Status.SKIPPED, None),
            (Outcome.SKIPPED, 5, 5): (Status.SKIPPED, None),
            (Outcome.PERMANENT_FAIL, 1, 5): (Status.DEAD, None),
            (Outcome.PERMANENT_FAIL, 5, 5): (Status.DEAD, None),
            (Outcome.TEMPORARY_FAIL, 1, 5): (Status.FAILED, 300),
            (Outcome.TEMPORARY_FAIL, 2, 5): (Status.FAILED, 600),
            (Outcome.TEMPORARY_FAIL, 3, 5): (Status.FAILED, 1200),
            (Outcome.TEMPORARY_FAIL, 4, 5): (Status.FAILED, 1800),
            (Outcome.TEMPORARY_FAIL, 5, 5): (Status.DEAD, None),
            (Outcome.TEMPORARY_FAIL, 6, 5): (Status.DEAD, None),
            (Outcome.TEMPORARY_FAIL, 1, 1): (Status.DEAD, None),
            (Outcome.LOST, 1, 5): (Status.DEAD, None),
        }

        actual = {
            (outcome, attempt, allowed): decide(make_claim(attempt, allowed), SendResult(outcome=outcome), OPTIONS)
            for outcome, attempt, allowed in decisions
        }

        assert actual == decisions

    def test_requested_delay_applies_between_the_backoff_and_the_maximum(self) -> None:
        delays = {
            (0, 1): 300,
            (60, 1): 300,  # less than the backoff changes nothing
            (900, 1): 900,
            (1800, 4): 1800,
            (3000, 4): 3000,  # more than the longest backoff is accepted
            (3601, 1): 3600,  # but not more than the maximum
            (1e12, 1): 3600,
        }

        actual = {
            (requested, attempt): decide(
                make_claim(attempt), SendResult(outcome=Outcome.TEMPORARY_FAIL, retry_after=requested), OPTIONS
            )
            for requested, attempt in delays
        }

        assert actual == {row: (Status.FAILED, delay) for row, delay in delays.items()}

    @given(st.floats(min_value=0, max_value=1e15), st.integers(1, 100))
    def test_delay_is_never_less_than_the_backoff_nor_more_than_both_maximums(
        self, requested: float, attempt: int
    ) -> None:
        result = SendResult(outcome=Outcome.TEMPORARY_FAIL, retry_after=requested)

        _, delay = decide(make_claim(attempt, 101), result, OPTIONS)

        assert delay is not None
        assert retry_delay(attempt, OPTIONS) <= delay <= max(OPTIONS.retry_max_delay, OPTIONS.retry_after_max)

    def test_requested_delay_of_a_final_result_is_ignored(self) -> None:
        outcomes = (Outcome.SUCCESS, Outcome.PERMANENT_FAIL, Outcome.SKIPPED)

        delays = {
            outcome: decide(make_claim(), SendResult(outcome=outcome, retry_after=60), OPTIONS)[1]
            for outcome in outcomes
        }

        assert delays == dict.fromkeys(outcomes)


class TestSettlement:
    def test_sent_record_keeps_no_error(self) -> None:
        result = SendResult(outcome=Outcome.SUCCESS, error_code="provider_5xx", error_message="odd")

        item = build_settlement(make_claim(), result, OPTIONS, duration=1, age=2)

        assert (item.status, item.error_code, item.error) == (Status.SENT, "", "")

    def test_texts_of_the_provider_are_made_to_fit_their_columns(self) -> None:
        result = SendResult(
            outcome=Outcome.PERMANENT_FAIL, error_code="x" * 99, error_message="a\x00\ud800" + "b" * 5000
        )

        item = build_settlement(make_claim(), result, OPTIONS, duration=1, age=2)

        assert item.error_code == "x" * 64
        assert item.error == "a\ufffd\ufffd" + "b" * 1997


class TestUnsendableResult:
    def test_lost_worker_and_used_up_attempts_have_different_codes(self) -> None:
        lost = unsendable_result(make_claim(5, previous=Status.SENDING, exhausted=True))
        used_up = unsendable_result(make_claim(5, previous=Status.FAILED, exhausted=True))

        assert (lost.outcome, lost.error_code) == ("permanent_fail", "lease_expired")
        assert (used_up.outcome, used_up.error_code) == ("permanent_fail", "attempts_exhausted")


class TestCause:
    def test_cause_follows_from_the_previous_status_and_the_round(self) -> None:
        causes = {
            (Status.PENDING, 0): Cause.EVENT,
            (Status.PENDING, 1): Cause.REPLAY,
            (Status.FAILED, 0): Cause.SWEEP,
            (Status.FAILED, 1): Cause.SWEEP,
            (Status.SENDING, 0): Cause.RECOVERY,
        }

        actual = {(previous, replay): make_claim(previous=previous, replay=replay).cause for previous, replay in causes}

        assert actual == causes


class TestNormalizeResult:
    def test_incomplete_and_unknown_results_become_temporary_failures(self) -> None:
        table = [
            (SendResult(outcome=""), "", ("temporary_fail", "network_error", "")),
            (SendResult(outcome="", error_code=" "), "eof", ("temporary_fail", "network_error", "eof")),
            (SendResult(outcome="", error_code=" x "), "eof", ("temporary_fail", "x", "eof")),
            (SendResult(outcome="", error_code="x", error_message=" m "), "eof", ("temporary_fail", "x", "m")),
            (SendResult(outcome="delivered", error_code="x"), "", ("temporary_fail", "x", "")),
            (SendResult(outcome="SUCCESS"), "", ("temporary_fail", "", "")),
            (SendResult(outcome="temporary_fail"), "429", ("temporary_fail", "", "429")),
            (SendResult(outcome="success"), "eof", ("success", "", "eof")),
            (SendResult(outcome="skipped", error_message="off"), "eof", ("skipped", "", "off")),
            (SendResult(outcome="lost"), "", ("temporary_fail", "", "")),
        ]

        for result, error, expected in table:
            normal = normalize_result(result, error)

            assert (normal.outcome, normal.error_code, normal.error_message) == expected, f"{result} with {error!r}"

    def test_exception_can_carry_a_result(self) -> None:
        result = SendResult(outcome=Outcome.SUCCESS)

        assert ProviderError("read body: EOF", result).result is result

    def test_success_with_values_of_wrong_types_stays_a_success(self) -> None:
        values: tuple[Any, ...] = (None, 7, ["om_1"])
        for name, value in itertools.product(("provider_message_id", "error_code", "error_message"), values):
            result = dataclasses.replace(SendResult(outcome=Outcome.SUCCESS), **{name: value})

            assert normalize_result(result).outcome == Outcome.SUCCESS, f"{name}={value!r}"
