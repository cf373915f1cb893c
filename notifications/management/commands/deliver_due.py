"""Deliver due notifications without Celery and without Redis: for outages, and for sites that have only cron."""

from __future__ import annotations

import dataclasses
import logging
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error, close_old_connections
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.api import request_triggered
from notifications.delivery.engine import Engine, RetryResult
from notifications.ingest.validation import InvalidNotification
from notifications.lifecycle.relay import RelayThread, relay_events
from notifications.maintenance.job_scheduler import run_due_jobs
from notifications.management.commands._base import Command as Base, StopSignal, positive_int, stop_on_signals
from notifications.models import NotificationRecord, ReplayOperation
from notifications.monitoring.alerting.dispatcher import evaluate_if_due
from notifications.replay.runner import run_due_batches
from notifications.service import NotificationService
from notifications.states import HeartbeatKind, HoldReason
from notifications.telemetry import heartbeats

logger = logging.getLogger("notifications.deliver_due")

RUN_BUDGET_SECONDS = 50.0
"""How long one run waits for rate limits and replays: less than a minute, so that runs of a cron job do not overlap.
Sends in flight are finished afterwards."""
RELAY_BUDGET_SECONDS = 5.0
"""How long one run calls receivers of signals at least, if deliveries have taken its time."""
IDLE_INTERVAL_SECONDS = 2.0
"""Pause between two claims while nothing is due. Such a claim reads only a few index pages."""
DATABASE_RETRY_SECONDS = 5.0
"""Pause while PostgreSQL is unavailable. The command retries until it is stopped."""


class Command(Base):
    """Runs the same engine as the workers. Any number of both may run at once."""

    about = _(
        "Deliver due notifications without Celery and without Redis, publish due jobs and run replays. Workers may run "
        "at the same time. By default the command ends when nothing is due; it waits up to 50 seconds for rate limits. "
        "With --forever it runs until SIGTERM or SIGINT, and finishes the sends in flight first."
    )
    exit_codes = _(
        "Exit codes: 0 nothing is due any more, or stopped by a signal; 1 invalid combination of arguments, or the "
        "database failed (without --forever); 2 invalid arguments. A failed delivery does not change the exit code: "
        "its record has the error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--forever", action="store_true", help=gettext("Run until SIGTERM or SIGINT."))
        parser.add_argument(
            "--limit", type=positive_int, default=0, metavar="N", help=gettext("Send at most N notifications.")
        )
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=IDLE_INTERVAL_SECONDS,
            metavar="SECONDS",
            help=gettext("With --forever: pause while nothing is due (%(default)s)."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Drain once, or until a signal."""
        if options["forever"] and options["limit"]:
            raise CommandError(gettext("--limit cannot be combined with --forever."))
        total = RetryResult()
        with stop_on_signals() as stop:
            if options["forever"]:
                self._forever(stop, options["interval"], total)
            else:
                try:
                    self._once(stop, options["limit"], total)
                except Error as error:
                    text = gettext("The database failed: %(error)s. Sends in flight were settled, or are retried.")
                    raise CommandError(text % {"error": type(error).__name__}) from error
        if options["verbosity"]:
            self._report(total)

    def _once(self, stop: StopSignal, limit: int, total: RetryResult) -> None:
        engine = Engine(should_stop=stop.requested)
        deadline = time.monotonic() + RUN_BUDGET_SECONDS
        while True:
            run_due_jobs(handle_trigger, budget=deadline - time.monotonic(), should_stop=stop.requested)
            run_due_batches(0, should_stop=stop.requested)
            left = limit - total.sends if limit else 0
            _drain(engine, left, stop, total)
            wait = min(_waits(), default=None)
            if (
                wait is None
                or stop.requested()
                or time.monotonic() + wait > deadline
                or (limit and total.sends >= limit)
            ):
                break
            stop.wait(wait)
        # Last, because a receiver may be slow. It is not interrupted.
        relay_events(budget=max(deadline - time.monotonic(), RELAY_BUDGET_SECONDS), should_stop=stop.requested)
        evaluate_if_due()

    def _forever(self, stop: StopSignal, interval: float, total: RetryResult) -> None:
        engine = Engine(should_stop=stop.requested)
        relay = RelayThread()
        logger.info("delivering until a stop signal", extra={"event": "deliver_due.started"})
        while not stop.requested():
            close_old_connections()
            relay.start()
            before = total.scanned
            try:
                run_due_batches(0)  # one batch per iteration: there may be no worker
                run_due_jobs(handle_trigger)
                _drain(engine, 0, stop, total)
                pause = 0.0 if total.scanned > before else engine.seconds_until_due(within=interval) or interval
            except Error as error:
                # The type only: the text may name the database's address.
                logger.error("database failed: %s", type(error).__name__, extra={"event": "deliver_due.database"})
                stop.wait(DATABASE_RETRY_SECONDS)
                continue
            evaluate_if_due()
            if pause:
                stop.wait(pause)
        relay.stop()
        logger.info("stopped", extra={"event": "deliver_due.stopped"})

    def _report(self, total: RetryResult) -> None:
        text = ngettext("%(count)d attempt was made.", "%(count)d attempts were made.", total.retried)
        self.stdout.write(text % {"count": total.retried})
        for label, count in (
            (gettext("sent"), total.sent),
            (gettext("waiting to retry"), total.failed),
            (gettext("dead, action needed"), total.dead),
            (gettext("skipped"), total.skipped),
            (gettext("result not stored, will be retried"), total.errors),
        ):
            if count:
                self.stdout.write(f"  {label}: {count}")


def handle_trigger(event: str, payload: object) -> None:
    """Handle a due trigger in this process, because there may be no worker. Store a rejected one, as a worker does."""
    try:
        request_triggered(payload)
    except InvalidNotification as error:
        NotificationService().reject(event, payload, error)


def _waits() -> Iterator[float]:
    """Yield the seconds until the next record that a rate limit holds may be sent, and until the next replay batch."""
    held = NotificationRecord.objects.filter(
        hold_reason=HoldReason.RATE_LIMITED, next_attempt_at__lte=Now() + timedelta(seconds=RUN_BUDGET_SECONDS)
    )
    replays = ReplayOperation.objects.filter(next_batch_at__isnull=False)
    for rows, column in ((held, "next_attempt_at"), (replays, "next_batch_at")):
        wait: Any = rows.order_by(column).values_list(F(column) - Now(), flat=True).first()
        if wait is not None:
            yield max(wait.total_seconds(), 0.0)


def _drain(engine: Engine, limit: int, stop: StopSignal, total: RetryResult) -> None:
    """Deliver until nothing is due, and add the counts to `total`. One call of the engine ends with its time budget."""
    has_more = True
    while has_more and not stop.requested():
        result = engine.deliver_due(limit=limit)
        for field in dataclasses.fields(RetryResult):
            setattr(total, field.name, getattr(total, field.name) + getattr(result, field.name))
        has_more = result.has_more
        heartbeats.record_heartbeat(HeartbeatKind.SWEEP)
        if limit:
            limit -= result.sends
            has_more = has_more and limit > 0


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 3600:
        raise ArgumentTypeError(gettext("must be a number of seconds, more than 0 and at most 3600"))
    return number
