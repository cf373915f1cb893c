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
PER_TRANSACTION = 100
COUNT = "SELECT count(*) FROM notification_records"


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Measure the wanted ones of both figures."""
    user = environment.users[QUICK][0]
    if "request_cost" in wanted:
        _measure_single(environment, size.repetitions, user, results)
    if "bulk_vs_bulk_create" in wanted:
        _measure_bulk(environment, size, user, results)
    environment.clear()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _measure_single(environment: BenchmarkEnvironment, repetitions: int, user: int, results: Results) -> None:
    from django.db import transaction

    from notifications.api import request_notification
    from notifications.models import NotificationRecord

    def request(start: str) -> None:
        with transaction.atomic():
            for number in range(PER_TRANSACTION):
                request_notification(payload(f"{start}:{number}", user))

    def create(start: str) -> None:
        with transaction.atomic():
            for number in range(PER_TRANSACTION):
                NotificationRecord.objects.create(**row(f"{start}:{number}", user))

    environment.clear()
    request("warm-a")
    create("warm-b")
    requested, created = [], []
    for number in range(repetitions):
        requested.append(_seconds(lambda start=f"a{number}": request(start)))  # type: ignore[misc]
        created.append(_seconds(lambda start=f"b{number}": create(start)))  # type: ignore[misc]
    if environment.number(COUNT) != 2 * PER_TRANSACTION * (repetitions + 1):
        raise BenchmarkError("requesting: not everything is stored")
    request_ms, create_ms = median(requested) / PER_TRANSACTION * 1000, median(created) / PER_TRANSACTION * 1000
    results.add("request_cost", request_ms / create_ms, **{"request ms": request_ms, "create ms": create_ms})


def _measure_bulk(environment: BenchmarkEnvironment, size: Size, user: int, results: Results) -> None:
    from django.db import transaction

    from notifications.api import request_notifications
    from notifications.ingest.insert import INSERT_BATCH_ROWS
    from notifications.models import NotificationRecord

    count = size.bulk
    payloads = [payload(f"bulk:{number}", user) for number in range(count)]
    rows = [row(f"bulk:{number}", user) for number in range(count)]

    def request() -> None:
        with transaction.atomic():
            request_notifications(payloads)

    def create() -> None:
        with transaction.atomic():
            NotificationRecord.objects.bulk_create(
                [NotificationRecord(**columns) for columns in rows], batch_size=INSERT_BATCH_ROWS
            )

    taken: dict[str, list[float]] = {"request": [], "create": []}
    for _ in range(size.bulk_times):
        for name, work in (("request", request), ("create", create)):
            environment.clear()
            taken[name].append(_seconds(work))
            if environment.number(COUNT) != count:
                raise BenchmarkError(f"requesting: not everything is stored by {name}")
    request_rate, create_rate = count / median(taken["request"]), count / median(taken["create"])
    results.add(
        "bulk_vs_bulk_create", request_rate / create_rate, **{"request/s": request_rate, "bulk_create/s": create_rate}
    )
