"""Due jobs: events that are to happen at a time, and the scanner that lets them happen.

The claim is that of records: one statement takes due rows (`FOR UPDATE SKIP LOCKED`) and puts them off by a lease, so
that whoever dies leaves them to the next. An event that is published twice makes one notification: its dedupe key is
in the job's payload.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import Error, connection, transaction

from notifications.conf import service_options

logger = logging.getLogger("notifications.jobs")

BATCH = 100
LONGEST_PAUSE = 300.0
"""Seconds; no backoff of a job is longer, so that a broker that is back is soon noticed."""
FIRST_PAUSE = 5.0

CLAIM_JOBS = """
WITH due AS (
    SELECT id FROM notification_due_jobs
    WHERE next_run_at <= statement_timestamp()
    ORDER BY next_run_at, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE notification_due_jobs AS job
SET lease_token = %(token)s,
    attempts = job.attempts + 1,
    next_run_at = statement_timestamp() + %(lease)s * interval '1 second'
FROM due
WHERE job.id = due.id
RETURNING job.id, job.event, job.payload::text
"""
_DONE = """
UPDATE notification_due_jobs
SET done_at = statement_timestamp(), next_run_at = NULL, lease_token = NULL, last_error = ''
WHERE id = ANY(%(ids)s) AND lease_token = %(token)s
"""
_PUT_OFF = """
UPDATE notification_due_jobs
SET next_run_at = statement_timestamp()
        + LEAST(%(first)s * 2.0 ^ LEAST(attempts - 1, 10), %(longest)s) * interval '1 second',
    lease_token = NULL,
    last_error = %(error)s
WHERE id = %(failed)s AND lease_token = %(token)s
"""
_GIVE_BACK = """
UPDATE notification_due_jobs
SET next_run_at = statement_timestamp(), lease_token = NULL, attempts = attempts - 1
WHERE id = ANY(%(ids)s) AND lease_token = %(token)s
"""

Publish = Callable[[str, Any], object]
"""Takes an event's name and payload; raises if it could not let the event happen."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """One job in our hands."""

    job_id: int
    event: str
    payload: Any


def run_due_jobs(publish: Publish, *, budget: float = 0.0, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Publish the jobs that are due, batch after batch, and return how many.

    publish: where one fails, that job is put off and the run ends; what is left of its batch stays due, so that one
    that always fails holds up no other.
    budget: seconds after which no further batch is begun. should_stop: asked before each batch.
    Any number may run at once. Raises RuntimeError inside a transaction of the caller, DatabaseError where PostgreSQL
    is away: what was claimed then becomes due again when its lease ends.
    """
    deadline, published = time.monotonic() + budget, 0
    while not should_stop():
        token = str(uuid.uuid4())
        jobs = claim_jobs(token)
        done = publish_jobs(jobs, token, publish)
        published += done
        if done < BATCH or time.monotonic() >= deadline:
            break
    return published


def claim_jobs(token: str) -> list[ClaimedJob]:
    """Take the jobs that are due, longest overdue first, and commit: they are ours for one lease."""
    parameters: dict[str, Any] = {"limit": BATCH, "token": token, "lease": service_options().lease}
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(CLAIM_JOBS, parameters)
        return [ClaimedJob(pk, event, json.loads(payload)) for pk, event, payload in sorted(cursor.fetchall())]


def publish_jobs(jobs: list[ClaimedJob], token: str, publish: Publish) -> int:
    """Publish claimed jobs and write down what came of it. Returns how many were published."""
    done: list[int] = []
    parameters: dict[str, Any] = {"token": token, "first": FIRST_PAUSE, "longest": LONGEST_PAUSE, "failed": None}
    for job in jobs:
        try:
            publish(job.event, job.payload)
        except Error:
            raise
        except Exception as error:  # whatever the broker's client raises; the text may name its address
            parameters |= {"failed": job.job_id, "error": type(error).__name__}
            logger.warning(
                "due job put off: %s",
                type(error).__name__,
                extra={"event": "job.put_off", "job_id": job.job_id, "error": type(error).__name__},
            )
            break
        done.append(job.job_id)
    with connection.cursor() as cursor:
        if done:
            cursor.execute(_DONE, parameters | {"ids": done})
        if parameters["failed"]:
            cursor.execute(_PUT_OFF, parameters)
        if left := [job.job_id for job in jobs[len(done) + 1 :]]:
            cursor.execute(_GIVE_BACK, parameters | {"ids": left})
    return len(done)
