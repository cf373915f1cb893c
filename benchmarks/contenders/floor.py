"""The floor: two plain processes that loop over requests.Session.post, or over urllib3, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from typing import Any

from benchmarks import wire

CHUNK = 16
"""Deliveries a process takes at a time, so that both end together."""


def loop(remaining: Any, url: str) -> None:
    """Post until nothing remains."""
    body = wire.body(1)
    post = wire.urllib3_post() if os.environ.get("BENCH_CLIENT") == "urllib3" else partial(wire.post, wire.session())
    while True:
        with remaining.get_lock():
            batch = min(CHUNK, remaining.value)
            remaining.value -= batch
        if not batch:
            return
        for _ in range(batch):
            post(url, body)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    remaining = fork.Value("i", int(os.environ["BENCH_COUNT"]))
    loops = [fork.Process(target=loop, args=(remaining, os.environ["BENCH_URL"])) for _ in range(2)]
    for process in loops:
        process.start()
    for process in loops:
        process.join()
