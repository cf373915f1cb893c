"""What a request costs its caller, as an event and as a message of `notify`.

One by one: transactions of 100 requests against transactions of 100 ORM creates of the same row, in turn, commit and
what is done on commit included. Many at once: one call against bulk_create of the same rows from the same dictionaries,
in batches of the same size. The messages are to users that the caller has, on a named channel, so that nothing is
looked up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.requests_made import payload, row
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError
from benchmarks.wire import SUMMARY

KEYS = frozenset({"request_cost", "bulk_vs_bulk_create", "notify_cost", "notify_bulk_vs_bulk_create"})
PER_TRANSACTION = 100
COUNT = "SELECT count(*) FROM notification_records"


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Measure the wanted ones of the figures."""
    from notifications.api import request_notification, request_notifications

    user = environment.users[QUICK][0]
    if "request_cost" in wanted:
        _measure_single(
            environment, size, user, results, "request_cost", lambda key: request_notification(payload(key, user))
        )
    if "notify_cost" in wanted:
        _measure_single(environment, size, user, results, "notify_cost", lambda key: _notify([user], key))
    if "bulk_vs_bulk_create" in wanted:
        payloads = [payload(f"bulk:{number}", user) for number in range(size.bulk)]
        _measure_bulk(environment, size, user, results, "bulk_vs_bulk_create", lambda: request_notifications(payloads))
    if "notify_bulk_vs_bulk_create" in wanted:
        recipients = range(1, size.bulk + 1)
        _measure_bulk(
            environment, size, user, results, "notify_bulk_vs_bulk_create", lambda: _notify(recipients, "bulk")
        )
    environment.clear()


def _notify(user_ids: Iterable[int], key: str) -> None:
    from django.contrib.auth import get_user_model

    from notifications.api import notify

    users = [get_user_model()(pk=user_id) for user_id in user_ids]
    notify(users, SUMMARY, url="https://shop.example/orders/1", key=key, channels=["feishu"])


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _measure_single(
    environment: BenchmarkEnvironment,
    size: Size,
    user: int,
    results: Results,
    name: str,
    request_one: Callable[[str], object],
) -> None:
    from django.db import transaction

    from notifications.models import NotificationRecord

    repetitions = size.repetitions

    def request(start: str) -> None:
        with transaction.atomic():
            for number in range(PER_TRANSACTION):
                request_one(f"{start}:{number}")

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
    results.add(name, request_ms / create_ms, **{"request ms": request_ms, "create ms": create_ms})


def _measure_bulk(
    environment: BenchmarkEnvironment,
    size: Size,
    user: int,
    results: Results,
    name: str,
    request_all: Callable[[], object],
) -> None:
    from django.db import transaction

    from notifications.ingest.insert import INSERT_BATCH_ROWS
    from notifications.models import NotificationRecord

    count = size.bulk
    rows = [row(f"bulk:{number}", user) for number in range(count)]

    def request() -> None:
        with transaction.atomic():
            request_all()

    def create() -> None:
        with transaction.atomic():
            NotificationRecord.objects.bulk_create(
                [NotificationRecord(**columns) for columns in rows], batch_size=INSERT_BATCH_ROWS
            )

    taken: dict[str, list[float]] = {"request": [], "create": []}
    for _ in range(size.bulk_times):
        for side, work in (("request", request), ("create", create)):
            environment.clear()
            taken[side].append(_seconds(work))
            if environment.number(COUNT) != count:
                raise BenchmarkError(f"requesting: not everything is stored by {side}")
    request_rate, create_rate = count / median(taken["request"]), count / median(taken["create"])
    results.add(name, request_rate / create_rate, **{"request/s": request_rate, "bulk_create/s": create_rate})
