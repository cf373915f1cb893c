"""Due jobs: events with a time, and the scheduler that publishes them at that time.

A claim works as for records: `SELECT ... FOR UPDATE SKIP LOCKED`, then a lease, so that the jobs of a process that dies
become due again. An event that is published twice creates one notification, because its payload has a dedupe key.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from notifications.conf import service_options
from notifications.models import DueJob

logger = logging.getLogger("notifications.jobs")

BATCH_JOBS = 100
"""Jobs that one claim takes at most."""
FIRST_RETRY_DELAY_SECONDS = 5.0
"""Delay after the first failure; it doubles with each further one."""
MAX_RETRY_DELAY_SECONDS = 300.0
"""Longest delay, so that jobs are published soon after the broker is available again."""
MAX_FAILURES_IN_A_ROW = 3
"""After this many failures in a row the run ends, because the broker is probably unavailable."""

Publish = Callable[[str, Any], object]
"""Takes the name of an event and its payload, and publishes it. Raises an exception if it could not."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """One job under our lease."""

    job_id: int
    event: str
    payload: Any
    attempts: int
    """Number of attempts to publish it, this one included."""


def run_due_jobs(publish: Publish, *, budget: float = 0.0, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Publish the due jobs, batch after batch.

    Any number of processes may run this at once. A job that fails is retried later, and the next job follows, so that a
    job that always fails delays no other. After some failures in a row the run ends, and the rest of its batch stays
    due.

    Args:
        publish: Publishes one event.
        budget: Seconds after which no further batch starts.
        should_stop: Called before each batch. True ends the run.

    Returns:
        The number of published jobs.

    Raises:
        RuntimeError: The caller has a transaction open.
        DatabaseError: PostgreSQL is unavailable. Claimed jobs become due again when their lease ends.
    """
    deadline, total = time.monotonic() + budget, 0
    while not should_stop():
        token = str(uuid.uuid4())
        jobs = claim_jobs(token)
        total += publish_jobs(jobs, token, publish)
        if len(jobs) < BATCH_JOBS or time.monotonic() >= deadline:
            break
    return total


def claim_jobs(token: str) -> list[ClaimedJob]:
    """Claim due jobs for one lease, longest overdue first, and commit.

    Args:
        token: A new UUID, which is the lease's token.

    Returns:
        The claimed jobs, at most BATCH_JOBS.
    """
    lease = timedelta(seconds=service_options().lease)
    with transaction.atomic(durable=True):
        due = DueJob.objects.filter(next_run_at__lte=Now()).order_by("next_run_at", "pk")
        jobs = list(due.select_for_update(skip_locked=True)[:BATCH_JOBS])
        DueJob.objects.filter(pk__in=[job.pk for job in jobs]).update(
            lease_token=token, attempts=F("attempts") + 1, next_run_at=Now() + lease
        )
    return [ClaimedJob(job.pk, job.event, job.payload, job.attempts + 1) for job in jobs]


def publish_jobs(jobs: list[ClaimedJob], token: str, publish: Publish) -> int:
    """Publish claimed jobs and store the results.

    Args:
        jobs: The jobs of one claim.
        token: The token of their lease.
        publish: Publishes one event.

    Returns:
        The number of published jobs.
    """
    leased = DueJob.objects.filter(lease_token=token)
    remaining, published, failures_in_a_row = list(jobs), 0, 0
    while remaining and failures_in_a_row < MAX_FAILURES_IN_A_ROW:
        job = remaining.pop(0)
        try:
            publish(job.event, job.payload)
        except Exception as error:  # the type only: the text of the broker's client may name its address
            failures_in_a_row += 1
            _retry_later(job, token, type(error).__name__)  # raises DatabaseError while PostgreSQL is unavailable
        else:
            failures_in_a_row = 0
            published += leased.filter(pk=job.job_id).update(
                done_at=Now(), next_run_at=None, lease_token=None, last_error=""
            )
    if remaining:
        ids = [job.job_id for job in remaining]
        leased.filter(pk__in=ids).update(next_run_at=Now(), lease_token=None, attempts=F("attempts") - 1)
    return published


def _retry_later(job: ClaimedJob, token: str, error: str) -> None:
    logger.warning("due job put off: %s", error, extra={"event": "job.put_off", "job_id": job.job_id, "error": error})
    delay = min(FIRST_RETRY_DELAY_SECONDS * 2.0 ** min(job.attempts - 1, 10), MAX_RETRY_DELAY_SECONDS)
    DueJob.objects.filter(pk=job.job_id, lease_token=token).update(
        next_run_at=Now() + timedelta(seconds=delay), lease_token=None, last_error=error
    )
