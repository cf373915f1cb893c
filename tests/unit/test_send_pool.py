"""The send pool returns every item, and runs as many threads as slow work needs, up to the number of slots."""

from __future__ import annotations

import threading

import pytest

from notifications.delivery.send_pool import SendPool

PATIENCE = 10.0


class Gate:
    """Work that waits until the gate is opened, and counts how many threads wait."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.inside = 0
        self.max_inside = 0
        self._lock = threading.Lock()

    def __call__(self, item: int) -> None:
        with self._lock:
            self.inside += 1
            self.max_inside = max(self.max_inside, self.inside)
        self.entered.release()
        assert self.open.wait(PATIENCE)
        with self._lock:
            self.inside -= 1


def test_every_item_is_collected_once() -> None:
    pool = SendPool[int](4, lambda item: None)
    pool.submit(range(50))

    assert sorted(pool.collect_all()) == list(range(50))
    assert pool.in_flight == 0
    assert pool.collect() == []


def test_slow_work_uses_all_slots_and_no_more_threads() -> None:
    gate = Gate()
    pool = SendPool[int](4, gate)
    pool.submit(range(9))

    assert pool.collect() == []  # nothing can have finished
    for _ in range(4):
        assert gate.entered.acquire(timeout=PATIENCE)
    gate.open.set()

    assert sorted(pool.collect_all()) == list(range(9))
    assert gate.max_inside == 4


def test_finished_items_are_collected_while_others_are_slow() -> None:
    gate = Gate()
    pool = SendPool[int](4, lambda item: gate(item) if item == 0 else None)
    pool.submit(range(3))

    finished = pool.collect()
    while len(finished) < 2:
        finished += pool.collect()

    assert sorted(finished) == [1, 2]
    gate.open.set()
    assert pool.collect_all() == [0]


def test_work_is_done_in_the_calling_thread_if_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = SendPool[int](4, lambda item: None)
    pool.submit(range(5))

    assert pool.collect_all() == list(range(5))


def test_item_whose_work_ends_its_thread_is_collected_and_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def work(item: int) -> None:
        if item < 4:
            raise SystemExit

    pool = SendPool[int](2, work)
    pool.submit(range(8))

    assert sorted(pool.collect_all()) == list(range(8))
