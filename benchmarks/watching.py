"""Measures a contender from outside: deliveries per second, and memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import psutil

from benchmarks.receiver import Receiver
from dev.procfile import Handle

PATIENCE = 60.0
POLL = 0.02


class BenchmarkError(RuntimeError):
    """A program did not start, or the deliveries differ from what was sent. The run has no valid result."""


def rate(
    receiver: Receiver,
    before: int,
    expected: int,
    watch: Callable[[], object] = lambda: None,
    began_to_count: Callable[[], object] = lambda: None,
) -> float:
    """Return deliveries per second, from the first 5 % to the last, so that start-up is not counted.

    Args:
        receiver: Counts the deliveries.
        before: Its count before the contender began.
        expected: The number of deliveries to wait for.
        watch: Called again and again while waiting.
        began_to_count: Called once, when the first 5 % are there.

    Raises:
        BenchmarkError: No delivery arrived for PATIENCE seconds.
    """
    began, at_start, last_hits, last_progress = 0.0, 0, -1, time.monotonic()
    while True:
        hits, now = receiver.hits() - before, time.monotonic()
        if not began and hits >= max(1, expected * 0.05):
            began, at_start = now, hits
            began_to_count()
        if hits >= expected:
            return (hits - at_start) / (now - began) if now > began else 0.0
        if hits > last_hits:
            last_hits, last_progress = hits, now
        elif now - last_progress > PATIENCE:
            raise BenchmarkError(f"only {hits} of {expected} deliveries came")
        watch()
        time.sleep(POLL)


def processor_time(pid: int) -> float:
    """Return the seconds a process and its children have worked, children that have ended included."""
    leader = psutil.Process(pid)
    times = leader.cpu_times()
    total: float = times.user + times.system + times.children_user + times.children_system
    for child in leader.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


def memory(handles: Sequence[Handle]) -> float:
    """Return the memory of processes and their children in MB; PSS, so that what they share counts once."""
    total = 0
    for handle in handles:
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(handle.pid)
            for process in (leader, *leader.children(recursive=True)):
                full = process.memory_full_info()
                total += getattr(full, "pss", full.uss)
    return total / 2**20
