"""Deliver what is due, without Celery and without Redis: for outages, and for sites that have only cron."""

from __future__ import annotations

import dataclasses
import logging
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error, close_old_connections
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.api import request_triggered
from notifications.delivery.engine import Engine, RetryResult
from notifications.ingest.validation import InvalidNotification
from notifications.maintenance.job_scheduler import run_due_jobs
from notifications.management.commands._base import Command as Base, Stop, positive_int, stop_on_signals
from notifications.monitoring.alerting.dispatcher import evaluate_if_due
from notifications.replay.runner import run_due_batches
from notifications.service import NotificationService
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats

logger = logging.getLogger("notifications.deliver_due")

IDLE = 2.0
"""Seconds between two looks when nothing is due: one look reads a few index pages."""
PAUSE = 5.0
"""Seconds to wait when PostgreSQL is away; it is asked again for as long as the command runs."""


class Command(Base):
    """Drives the same engine as the workers; any number of either may run at once."""

    about = _(
        "Deliver the notifications that are due, without Celery and without Redis. Safe beside running workers. "
        "Once by default; with --forever until SIGTERM or SIGINT, which finish what is in flight."
    )
    exit_codes = _(
        "Exit codes: 0 drained, or stopped by a signal; 1 wrong arguments, or without --forever the database failed; "
        "2 unreadable arguments. "
        "A delivery that failed is no error of the command: its record says so."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--forever", action="store_true", help=gettext("Go on until a signal comes."))
        parser.add_argument(
            "--limit", type=positive_int, default=0, metavar="N", help=gettext("Take N notifications at most.")
        )
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=IDLE,
            metavar="SECONDS",
            help=gettext("With --forever: wait this long when nothing is due (%(default)s)."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Drain once, or until a signal."""
        if options["forever"] and options["limit"]:
            raise CommandError(gettext("--limit goes with a single run, not with --forever."))
        total = RetryResult()
        with stop_on_signals() as stop:
            if options["forever"]:
                self._forever(stop, options["interval"], total)
            else:
                try:
                    _drain(Engine(should_stop=stop.asked), options["limit"], stop, total)
                except Error as error:
                    text = gettext("The database failed: %(error)s. What was in flight has been settled or comes back.")
                    raise CommandError(text % {"error": type(error).__name__}) from error
        if options["verbosity"]:
            self._report(total)

    def _forever(self, stop: Stop, interval: float, total: RetryResult) -> None:
        engine = Engine(should_stop=stop.asked)
        logger.info("delivering until a signal comes", extra={"event": "deliver_due.started"})
        while not stop.asked():
            close_old_connections()
            before = total.scanned
            try:
                run_due_batches(0)  # a batch of each loop: there may be no worker to do it
                run_due_jobs(_let_happen)
                _drain(engine, 0, stop, total)
            except Error as error:
                # The type only: the text may name the database's address.
                logger.error("database failed: %s", type(error).__name__, extra={"event": "deliver_due.database"})
                stop.wait(PAUSE)
                continue
            evaluate_if_due()
            if total.scanned == before:
                stop.wait(interval)
        logger.info("stopped", extra={"event": "deliver_due.stopped"})

    def _report(self, total: RetryResult) -> None:
        text = ngettext("%(count)d attempt was made.", "%(count)d attempts were made.", total.retried)
        self.stdout.write(text % {"count": total.retried})
        for label, count in (
            (gettext("sent"), total.sent),
            (gettext("waiting to retry"), total.failed),
            (gettext("dead, action needed"), total.dead),
            (gettext("skipped"), total.skipped),
            (gettext("result not written down, will be tried again"), total.errors),
        ):
            if count:
                self.stdout.write(f"  {label}: {count}")


def _let_happen(event: str, payload: object) -> None:
    """Handle a due event here: there may be no worker to send it to. What is refused is kept, as a worker does."""
    try:
        request_triggered(payload)
    except InvalidNotification as error:
        NotificationService().reject(event, payload, error)


def _drain(engine: Engine, limit: int, stop: Stop, total: RetryResult) -> None:
    """Deliver until nothing is due, adding up in `total`; one call of the engine ends when its time budget does."""
    more = True
    while more and not stop.asked():
        done = engine.deliver_due(limit=limit)
        for field in dataclasses.fields(RetryResult):
            setattr(total, field.name, getattr(total, field.name) + getattr(done, field.name))
        more = done.has_more
        heartbeats.record_heartbeat(HeartbeatKind.SWEEP)
        if limit:
            limit -= done.scanned
            more = more and limit > 0


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 3600:
        raise ArgumentTypeError(gettext("must be a number of seconds, more than 0 and at most 3600"))
    return number
