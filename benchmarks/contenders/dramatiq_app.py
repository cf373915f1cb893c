"""dramatiq, 2 processes of 8 threads, which stores nothing."""

from __future__ import annotations

import os
import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import wire

broker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)
COMMAND = "dramatiq benchmarks.contenders.dramatiq_app --processes 2 --threads 8"
_own = threading.local()


@dramatiq.actor(queue_name="bench", max_retries=0)
def send(body: str) -> None:
    """Post."""
    if not hasattr(_own, "session"):
        _own.session = wire.session()
    wire.post(_own.session, os.environ["BENCH_URL"], body.encode())


def fill(count: int) -> None:
    """Queue so many messages."""
    for number in range(count):
        send.send(wire.body(number).decode())
