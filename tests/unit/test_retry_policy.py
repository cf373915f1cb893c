"""The retry policy: the backoff, its jitter, and the peaks it avoids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.retry_policy import add_jitter, retry_delay

SECONDS = st.floats(min_value=0.001, max_value=1e11)
ATTEMPTS = st.integers(min_value=-(2**63), max_value=2**63)
OPTIONS = st.builds(ServiceOptions, retry_base_delay=SECONDS, retry_max_delay=SECONDS)


class TestRetryDelay:
    def test_delay_doubles_up_to_the_maximum(self) -> None:
        delays = {1: 300, 2: 600, 3: 1200, 4: 1800, 5: 1800, 1000: 1800}

        assert {attempt: retry_delay(attempt, ServiceOptions()) for attempt in delays} == delays

    def test_less_than_one_attempt_counts_as_one(self) -> None:
        delays = dict.fromkeys([0, -1, -(2**63)], 300)

        assert {attempt: retry_delay(attempt, ServiceOptions()) for attempt in delays} == delays

    @given(ATTEMPTS, OPTIONS)
    def test_delay_is_between_base_and_maximum(self, attempt: int, options: ServiceOptions) -> None:
        assert options.retry_base_delay <= retry_delay(attempt, options) <= options.retry_max_delay

    @given(ATTEMPTS, OPTIONS)
    def test_delay_never_decreases_with_attempts(self, attempt: int, options: ServiceOptions) -> None:
        assert retry_delay(attempt, options) <= retry_delay(attempt + 1, options)

    @given(OPTIONS)
    def test_each_delay_is_twice_the_last_one_until_the_maximum(self, options: ServiceOptions) -> None:
        for attempt in range(1, 60):
            expected = min(2 * retry_delay(attempt, options), options.retry_max_delay)
            assert retry_delay(attempt + 1, options) == expected


class TestJitter:
    def test_no_jitter_by_default_as_in_the_go_service(self) -> None:
        assert add_jitter(300.0, ServiceOptions()) == 300.0

    def test_jitter_adds_at_most_its_part_of_the_delay(self) -> None:
        delays = [add_jitter(300.0, ServiceOptions(retry_jitter=0.2)) for _ in range(20)]

        assert [delay for delay in delays if not 300.0 <= delay <= 360.0] == []

    def test_retry_avoids_the_peak_around_full_and_half_hours(self) -> None:
        for minute in range(60):
            now = datetime(2026, 5, 1, 9, minute, 30, tzinfo=UTC)

            delay = add_jitter(300.0, ServiceOptions(), peak_clock=now)

            due = now + timedelta(seconds=delay)
            assert 120 <= (due.minute % 30) * 60 + due.second < 1740, f"minute {minute}: due at {due:%H:%M:%S}"
            assert 300.0 <= delay <= 600.0, f"minute {minute}"
