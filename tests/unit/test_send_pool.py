"""Sender threads: everything comes back, no more at once than there are slots, as many as slow work needs."""

from __future__ import annotations

import threading

import pytest

from notifications.delivery.send_pool import SendPool

PATIENCE = 10.0


class Gate:
    """Work that waits until it is let through, and counts how many wait."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, item: int) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        assert self.open.wait(PATIENCE)
        with self._lock:
            self.inside -= 1


def test_everything_comes_back_once() -> None:
    pool = SendPool[int](4, lambda item: None)
    pool.submit(range(50))

    assert sorted(pool.collect_all()) == list(range(50))
    assert pool.in_flight == 0
    assert pool.collect() == []


def test_slow_work_gets_as_many_threads_as_there_are_slots_and_no_more() -> None:
    gate = Gate()
    pool = SendPool[int](4, gate)
    pool.submit(range(9))

    assert pool.collect() == []  # nothing can have finished
    for _ in range(4):
        assert gate.entered.acquire(timeout=PATIENCE)
    gate.open.set()

    assert sorted(pool.collect_all()) == list(range(9))
    assert gate.most == 4


def test_what_is_finished_does_not_wait_for_what_is_slow() -> None:
    gate = Gate()
    pool = SendPool[int](4, lambda item: gate(item) if item == 0 else None)
    pool.submit(range(3))

    finished = pool.collect()
    while len(finished) < 2:
        finished += pool.collect()

    assert sorted(finished) == [1, 2]
    gate.open.set()
    assert pool.collect_all() == [0]


def test_where_no_thread_can_be_started_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = SendPool[int](4, lambda item: None)
    pool.submit(range(5))

    assert pool.collect_all() == list(range(5))


def test_work_that_ends_its_thread_is_handed_back_and_costs_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def work(item: int) -> None:
        if item < 4:
            raise SystemExit

    pool = SendPool[int](2, work)
    pool.submit(range(8))

    assert sorted(pool.collect_all()) == list(range(8))
