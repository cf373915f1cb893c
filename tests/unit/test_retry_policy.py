"""When to try again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.retry_policy import add_jitter, retry_delay

SECONDS = st.floats(min_value=0.001, max_value=1e12)
ATTEMPTS = st.integers(min_value=-(2**63), max_value=2**63)
OPTIONS = st.builds(ServiceOptions, retry_base_delay=SECONDS, retry_max_delay=SECONDS)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 300), (2, 600), (3, 1200), (4, 1800), (5, 1800), (1000, 1800)])
def test_doubles_up_to_the_maximum(attempt: int, delay: float) -> None:
    assert retry_delay(attempt, ServiceOptions()) == delay


@pytest.mark.parametrize("attempt", [0, -1, -(2**63)])
def test_less_than_one_attempt_counts_as_one(attempt: int) -> None:
    assert retry_delay(attempt, ServiceOptions()) == 300


@given(ATTEMPTS, OPTIONS)
def test_never_below_the_base_and_never_above_the_maximum(attempt: int, options: ServiceOptions) -> None:
    assert options.retry_base_delay <= retry_delay(attempt, options) <= options.retry_max_delay


@given(ATTEMPTS, OPTIONS)
def test_a_later_attempt_never_waits_less(attempt: int, options: ServiceOptions) -> None:
    assert retry_delay(attempt, options) <= retry_delay(attempt + 1, options)


@given(OPTIONS)
def test_doubles_until_the_maximum_is_reached(options: ServiceOptions) -> None:
    for attempt in range(1, 60):
        expected = min(2 * retry_delay(attempt, options), options.retry_max_delay)
        assert retry_delay(attempt + 1, options) == expected


class TestSpread:
    def test_without_jitter_the_backoff_is_the_go_services(self) -> None:
        assert add_jitter(300.0, ServiceOptions()) == 300.0

    @pytest.mark.parametrize("_try", range(20))
    def test_jitter_adds_up_to_its_part(self, _try: int) -> None:
        assert 300.0 <= add_jitter(300.0, ServiceOptions(retry_jitter=0.2)) <= 360.0

    @pytest.mark.parametrize("minute", range(60))
    def test_a_retry_keeps_away_from_full_and_half_hours(self, minute: int) -> None:
        now = datetime(2026, 5, 1, 9, minute, 30, tzinfo=UTC)

        delay = add_jitter(300.0, ServiceOptions(), peak_clock=now)

        due = now + timedelta(seconds=delay)
        assert 120 <= (due.minute % 30) * 60 + due.second < 1740
        assert 300.0 <= delay <= 600.0
