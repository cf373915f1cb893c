"""Time calls of request_notification, each in a transaction of its own, with Redis as REDIS_URL says.

Prints milliseconds: of first calls, as in a process that has not used Redis yet, and of the calls that follow them.
BENCH_COUNT: first calls; each is followed by ten.
"""

from __future__ import annotations

import json
import os
import time

import django

FOLLOWING = 10


def timed(number: int) -> float:
    """Return the milliseconds of one request with its commit and what is done on it."""
    from django.db import transaction

    from benchmarks.requests_made import payload
    from notifications.api import request_notification

    began = time.monotonic()
    with transaction.atomic():
        request_notification(payload(f"redis:{os.getpid()}:{number}", 1))
    return (time.monotonic() - began) * 1000


if __name__ == "__main__":
    django.setup()
    from django.db import transaction

    from benchmarks.requests_made import payload
    from notifications.api import request_notification
    from notifications.broker.redis_client import gateway

    for number in range(20):  # warm, but without a word to Redis
        with transaction.atomic():
            request_notification(payload(f"warm:{os.getpid()}:{number}", 1))
            transaction.set_rollback(True)
    first, later = [], []
    for number in range(int(os.environ["BENCH_COUNT"])):
        gateway.cache_clear()
        first.append(timed(number * 100))
        later += [timed(number * 100 + following) for following in range(1, FOLLOWING + 1)]
    print(json.dumps({"first": first, "later": later}))
