"""The textbook durable Celery task: one message per record; get, claim, POST, result, attempt, a commit each."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta

from celery import Celery

from benchmarks import wire

app = Celery("durable", broker=os.environ.get("REDIS_URL"), set_as_current=False)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue="durable",
    worker_hijack_root_logger=False,
    CELERY_DB_REUSE_MAX=10_000,
)
COMMAND = (
    "celery -A benchmarks.contenders.durable_celery worker --pool prefork --concurrency 2 --queues durable"
    " --without-gossip --without-mingle --without-heartbeat --loglevel WARNING"
)
_session = wire.session()


@app.task(name="durable.send")
def send(record_id: int) -> None:
    """Deliver one record."""
    from django.utils import timezone

    from notifications.models import DeliveryAttempt, NotificationRecord

    record = NotificationRecord.objects.get(pk=record_id)
    began = timezone.now()
    claimed = NotificationRecord.objects.filter(pk=record_id, status="pending").update(
        status="sending",
        lease_token=uuid.uuid4(),
        attempt_count=record.attempt_count + 1,
        next_attempt_at=began + timedelta(seconds=60),
        updated_at=began,
    )
    if not claimed:
        return
    wire.post(_session, os.environ["BENCH_URL"], wire.body(record.pk, record.preview_id))
    ended = timezone.now()
    NotificationRecord.objects.filter(pk=record_id).update(
        status="sent", lease_token=None, next_attempt_at=None, sent_at=ended, updated_at=ended
    )
    DeliveryAttempt.objects.create(
        record_id=record_id,
        number=1,
        cause="event",
        started_at=began,
        duration_ms=int((ended - began).total_seconds() * 1000),
        outcome="success",
        http_status=200,
        response_excerpt=wire.ANSWER.decode(),
        worker=str(os.getpid()),
    )


def fill(ids: list[int]) -> None:
    """Queue a message for each record."""
    with app.producer_pool.acquire(block=True) as producer:
        for record_id in ids:
            send.apply_async((record_id,), producer=producer)
