"""A look at the queue begins where the last one ended, unless a look from its beginning is due."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from notifications.delivery import queue_start
from notifications.delivery.queue_start import QueueStart

CHANNELS = ("feishu",)
NORMAL = 1


class Time:
    """The monotonic clock of a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(queue_start, "time", SimpleNamespace(monotonic=lambda: self.now))

    def look(self, start: QueueStart, *, seconds: float, last: float | None) -> float | None:
        """Return where a look begins that takes so long, and whose last record became due at this time."""
        since = start.begin(CHANNELS)
        self.now += seconds
        start.end({} if last is None else {NORMAL: last})
        return since.get(NORMAL)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_looks_from_the_beginning_take_at_most_a_tenth_of_the_time(time: Time) -> None:
    start = QueueStart()
    assert time.look(start, seconds=0.2, last=50.0) is None
    start.expect()

    assert time.look(start, seconds=0.1, last=60.0) == pytest.approx(50.0, abs=0.01)
    assert start.seconds_until_full_look == pytest.approx(1.7)
    assert time.look(start, seconds=1.6, last=None) == pytest.approx(60.0, abs=0.01)
    assert time.look(start, seconds=0.2, last=70.0) == pytest.approx(60.0, abs=0.01)

    assert time.look(start, seconds=0.2, last=70.0) is None


def test_a_look_from_the_beginning_is_left_to_do_only_after_a_wake_up(time: Time) -> None:
    start = QueueStart()
    start.expect()
    time.look(start, seconds=0.2, last=50.0)
    time.look(start, seconds=0.1, last=None)
    assert start.seconds_until_full_look is None

    start.expect()
    time.look(start, seconds=0.1, last=None)
    assert start.seconds_until_full_look is not None


def test_a_look_that_hung_puts_the_next_one_off_for_seconds_only(time: Time) -> None:
    start = QueueStart()
    time.look(start, seconds=30.0, last=50.0)
    start.expect()
    time.look(start, seconds=0.0, last=None)

    assert start.seconds_until_full_look == pytest.approx(queue_start.MAX_PAUSE_SECONDS)


def test_a_look_at_other_channels_begins_at_the_beginning(time: Time) -> None:
    start = QueueStart()
    time.look(start, seconds=5.0, last=50.0)

    assert start.begin(("webhook",)) == {}


def test_each_priority_has_its_own_start(time: Time) -> None:
    start = QueueStart()
    start.begin(CHANNELS)
    time.now += 5.0
    start.end({0: 40.0, 3: 90.0})
    start.begin(CHANNELS)
    start.end({3: 95.0})

    assert start.begin(CHANNELS) == pytest.approx({0: 40.0, 3: 95.0}, abs=0.01)


def test_nothing_is_passed_over_before_something_was_found(time: Time) -> None:
    start = QueueStart()
    time.look(start, seconds=5.0, last=None)

    assert start.begin(CHANNELS) == {}
