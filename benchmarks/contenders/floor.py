"""The floor: two plain processes that loop over requests.Session.post, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from benchmarks import wire

CHUNK = 16
"""Deliveries a process takes at a time, so that both end together."""


def loop(left: Any, url: str) -> None:
    """Post until nothing is left."""
    session, body = wire.session(), wire.body(1)
    while True:
        with left.get_lock():
            mine = min(CHUNK, left.value)
            left.value -= mine
        if not mine:
            return
        for _ in range(mine):
            wire.post(session, url, body)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    left = fork.Value("i", int(os.environ["BENCH_COUNT"]))
    loops = [fork.Process(target=loop, args=(left, os.environ["BENCH_URL"])) for _ in range(2)]
    for process in loops:
        process.start()
    for process in loops:
        process.join()
