"""Commit requests in threads, one in each transaction, and print how many by kind.

BENCH_KINDS: kinds in turn, comma separated: none, notify, within (see measures.committing). BENCH_START: when the first
one begins, in seconds of the monotonic clock; each lasts BENCH_SECONDS. BENCH_USER: id of the user.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import django

THREADS = 16


def commit_until(ends: float, kind: str, name: str, user: int) -> int:
    """Commit requests until that time; return how many."""
    from django.db import connection, transaction

    from benchmarks.requests_made import payload
    from notifications.api import request_notification

    done = 0
    while time.monotonic() < ends:
        with transaction.atomic():
            request_notification(payload(f"{name}:{done}", user))
            if kind == "within":
                with connection.cursor() as cursor:
                    cursor.execute("NOTIFY notification_benchmark")
        done += 1
    return done


def listen(stopping: threading.Event) -> threading.Thread:
    """Take wake-ups as a worker does, without a drain."""
    from notifications.broker.notify_wakeups import NotifyListener

    listener = NotifyListener(stopping=stopping, on_wakeup=lambda: None)
    thread = threading.Thread(target=listener.listen, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Commit in each kind, and print the numbers."""
    from django.db import connection

    from benchmarks.requests_made import nudging_by

    start, seconds, user = (float(os.environ[f"BENCH_{name}"]) for name in ("START", "SECONDS", "USER"))
    done: Counter[str] = Counter()
    stopping = threading.Event()
    listener = listen(stopping)

    def connect(_number: int) -> None:
        connection.ensure_connection()
        barrier.wait()

    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(connect, range(THREADS)))
        for turn, kind in enumerate(os.environ["BENCH_KINDS"].split(",")):
            begins = start + turn * seconds
            assert time.monotonic() < begins or turn, "not ready in time"  # noqa: S101
            time.sleep(max(0.0, begins - time.monotonic()))

            def commit(number: int, kind: str = kind, turn: int = turn, ends: float = begins + seconds) -> int:
                return commit_until(ends, kind, f"{os.getpid()}:{turn}:{number}", int(user))

            with nudging_by("notify" if kind == "notify" else "none"):
                done[kind] += sum(pool.map(commit, range(THREADS)))
    stopping.set()
    listener.join()
    print(json.dumps(done))


if __name__ == "__main__":
    django.setup()
    main()
