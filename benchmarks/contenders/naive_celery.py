"""A Celery task that only POSTs, in its best setting: nothing is stored, what a worker holds is lost with it.

It lives in the Django project, as a Django team's task does. Without Django it is no faster (its main process is what
limits it) and takes 40 MB less.
"""

from __future__ import annotations

import os

from celery import Celery

from benchmarks import wire

app = Celery("naive", broker=os.environ.get("REDIS_URL"), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=False,
    worker_prefetch_multiplier=32,
    task_default_queue="naive",
    worker_hijack_root_logger=False,
)
COMMAND = (
    "celery -A benchmarks.contenders.naive_celery worker --pool prefork --concurrency 2 --queues naive"
    " --without-gossip --without-mingle --without-heartbeat --loglevel WARNING"
)
_session = wire.session()


@app.task(name="naive.send")
def send(body: str) -> None:
    """Post."""
    wire.post(_session, os.environ["BENCH_URL"], body.encode())


def fill(count: int) -> None:
    """Queue so many messages."""
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            send.apply_async((wire.body(number).decode(),), producer=producer)
