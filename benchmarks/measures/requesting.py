"""What a request costs its caller.

One by one: transactions of 100 requests against transactions of 100 ORM creates of the same row, in turn, commit and
what is done on commit included. Many at once: request_notifications against bulk_create of the same rows from the same
dictionaries, in batches of the same size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.requests_made import payload, row
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

KEYS = frozenset({"request_cost", "bulk_vs_bulk_create"})
IN_ONE = 100
COUNT = "SELECT count(*) FROM notification_records"


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Take both figures, as far as they are wanted."""
    user = environment.users[QUICK][0]
    if "request_cost" in wanted:
        _one_by_one(environment, size.repetitions, user, results)
    if "bulk_vs_bulk_create" in wanted:
        _bulk(environment, size, user, results)
    environment.clear()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _one_by_one(environment: BenchmarkEnvironment, repetitions: int, user: int, results: Results) -> None:
    from django.db import transaction

    from notifications.api import request_notification
    from notifications.models import NotificationRecord

    def ask(start: str) -> None:
        with transaction.atomic():
            for number in range(IN_ONE):
                request_notification(payload(f"{start}:{number}", user))

    def create(start: str) -> None:
        with transaction.atomic():
            for number in range(IN_ONE):
                NotificationRecord.objects.create(**row(f"{start}:{number}", user))

    environment.clear()
    ask("warm-a")
    create("warm-b")
    asked, created = [], []
    for number in range(repetitions):
        asked.append(_seconds(lambda start=f"a{number}": ask(start)))  # type: ignore[misc]
        created.append(_seconds(lambda start=f"b{number}": create(start)))  # type: ignore[misc]
    if environment.number(COUNT) != 2 * IN_ONE * (repetitions + 1):
        raise BenchmarkError("requesting: not everything is stored")
    ours, theirs = median(asked) / IN_ONE * 1000, median(created) / IN_ONE * 1000
    results.add("request_cost", ours / theirs, **{"request ms": ours, "create ms": theirs})


def _bulk(environment: BenchmarkEnvironment, size: Size, user: int, results: Results) -> None:
    from django.db import transaction

    from notifications.api import request_notifications
    from notifications.ingest.insert import INSERT_BATCH_ROWS
    from notifications.models import NotificationRecord

    count = size.bulk
    payloads = [payload(f"bulk:{number}", user) for number in range(count)]
    rows = [row(f"bulk:{number}", user) for number in range(count)]

    def ask() -> None:
        with transaction.atomic():
            request_notifications(payloads)

    def create() -> None:
        with transaction.atomic():
            NotificationRecord.objects.bulk_create(
                [NotificationRecord(**one) for one in rows], batch_size=INSERT_BATCH_ROWS
            )

    taken: dict[str, list[float]] = {"request": [], "create": []}
    for _ in range(size.bulk_times):
        for name, work in (("request", ask), ("create", create)):
            environment.clear()
            taken[name].append(_seconds(work))
            if environment.number(COUNT) != count:
                raise BenchmarkError(f"requesting: not everything is stored by {name}")
    ours, theirs = count / median(taken["request"]), count / median(taken["create"])
    results.add("bulk_vs_bulk_create", ours / theirs, **{"request/s": ours, "bulk_create/s": theirs})
