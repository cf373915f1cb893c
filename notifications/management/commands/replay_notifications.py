"""Let notifications be sent again: many at once, or where there is no browser."""

from __future__ import annotations

from argparse import ArgumentTypeError, BooleanOptionalAction
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.clock import database_now
from notifications.management.commands._base import Command as Base, Stop, positive_int, stop_on_signals
from notifications.models import ReplayOperation
from notifications.replay.criteria import Criteria, InvalidCriteria, breakdown
from notifications.replay.operations import create_operation
from notifications.replay.runner import run
from notifications.states import UNDELIVERED, OperationStatus, Status

OPTIONS = {
    "id": "ids",
    "status": "statuses",
    "code": "codes",
    "channel": "channel",
    "user": "user",
    "key": "dedupe_key",
    "trace": "trace_id",
    "preview": "preview_id",
    "since": "created_from",
    "until": "created_until",
    "changed_since": "changed_from",
    "changed_until": "changed_until",
}
"""The options that select, and the criteria they stand for."""
STEP = 1.0
"""Seconds between two lines of progress."""


class Command(Base):
    """Orders a replay operation, and helps to run it."""

    about = _(
        "Let notifications be sent again with a fresh budget of attempts; their history stays. Takes dead and skipped "
        "ones; with --force also sent and cancelled ones. The options that select narrow each other; at least one is "
        "needed. It becomes a replay operation, which the admin shows and can cancel."
    )
    exit_codes = _("Exit codes: 0 done; 1 not done, the reason is on stderr; 2 unreadable arguments.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        select = parser.add_argument_group(gettext("which ones"))
        select.add_argument("--id", type=int, action="append", metavar="N", help=gettext("This record; repeatable."))
        select.add_argument(
            "--status",
            action="append",
            choices=[*map(str, UNDELIVERED), str(Status.SENT)],
            help=gettext("Those in this state; repeatable."),
        )
        select.add_argument(
            "--code", action="append", help=gettext("Those whose last error has this code; repeatable.")
        )
        select.add_argument("--channel", help=gettext("Those of this channel."))
        select.add_argument("--user", type=int, metavar="N", help=gettext("Those of the user with this number."))
        select.add_argument("--key", help=gettext("The one with this dedupe key."))
        select.add_argument("--trace", help=gettext("Those with this trace id."))
        select.add_argument("--preview", help=gettext("Those with this preview id."))
        select.add_argument("--since", type=_time, metavar="TIME", help=gettext("Requested at this time or later."))
        select.add_argument("--until", type=_time, metavar="TIME", help=gettext("Requested before this time."))
        select.add_argument(
            "--changed-since",
            type=_time,
            metavar="TIME",
            help=gettext("Changed last (dead since) at this time or later."),
        )
        select.add_argument(
            "--changed-until", type=_time, metavar="TIME", help=gettext("Changed last before this time.")
        )
        parser.add_argument("--reason", default="", help=gettext("Why; kept in the log. Needed unless --dry-run."))
        parser.add_argument("--actor", metavar="USERNAME", help=gettext("Who; kept in the history of each record."))
        parser.add_argument("--force", action="store_true", help=gettext("Also sent ones: the reader gets them twice."))
        parser.add_argument(
            "--rate", type=positive_int, metavar="N", help=gettext("N records a minute at most, over all processes.")
        )
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only say what would be replayed."))
        parser.add_argument(
            "--wait",
            action=BooleanOptionalAction,
            default=True,
            help=gettext(
                "Run it here, beside the workers, and say how far it is; or leave it to them. Waits by default."
            ),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Count, order, say what was done."""
        if not any(options[name] is not None for name in OPTIONS):
            names = ", ".join(f"--{name.replace('_', '-')}" for name in OPTIONS)
            raise CommandError(gettext("Say which ones: %(options)s.") % {"options": names})
        reason = options["reason"].strip()
        if not reason and not options["dry_run"]:
            raise CommandError(gettext("--reason is needed: it is what the next person reads in the log."))
        actor = _actor(options["actor"])
        try:
            criteria = _criteria(options)
            if options["dry_run"]:
                self._foretell(criteria)
                return
            operation = create_operation(criteria, actor, reason, rate=options["rate"])
            if options["wait"]:
                self._wait(operation)
            else:
                self._say(
                    ngettext("%(count)d will be replayed.", "%(count)d will be replayed.", operation.matched), operation
                )
        except InvalidCriteria as error:
            options_of = {field: f"--{name.replace('_', '-')}" for name, field in OPTIONS.items()}
            raise CommandError(
                "; ".join(f"{options_of.get(field, f'--{field}')}: {reason}" for field, reason in error.errors)
            ) from None
        except Error as error:
            # The type only: the text may name the database's address.
            text = gettext("The database failed: %(error)s. What was ordered by then goes on by itself.")
            raise CommandError(text % {"error": type(error).__name__}) from None

    def _foretell(self, criteria: Criteria) -> None:
        groups = breakdown(criteria, database_now())
        count = sum(group.count for group in groups)
        self.stdout.write(
            ngettext("%(count)d would be replayed.", "%(count)d would be replayed.", count) % {"count": count}
        )
        for group in groups:
            facts = {
                "status": Status(group.status).label,
                "code": group.code or "-",
                "channel": group.channel,
                "count": group.count,
                "oldest": _shown(group.oldest),
                "newest": _shown(group.newest),
            }
            text = gettext("%(status)s, %(code)s, %(channel)s: %(count)d, changed from %(oldest)s to %(newest)s")
            self.stdout.write("  " + text % facts)

    def _wait(self, operation: ReplayOperation) -> None:
        with stop_on_signals() as stop:
            while operation.next_batch_at is not None and not stop.asked():
                before = operation.done
                run(STEP, should_stop=stop.asked, only=operation)
                operation.refresh_from_db()
                self._progress(operation, before, stop)
        left = max(operation.matched - operation.done, 0)
        done = ngettext("%(count)d was replayed.", "%(count)d were replayed.", operation.done) % {
            "count": operation.done
        }
        if operation.status == OperationStatus.DONE:
            rest = ngettext("%(count)d was left alone.", "%(count)d were left alone.", left) % {"count": left}
            self.stdout.write(f"{done} {rest}")
        elif operation.next_batch_at is not None:
            rest = gettext("The workers go on with the rest.")
            self.stdout.write(f"{done} {rest}")
        else:
            status = OperationStatus(operation.status).label
            text = gettext("The operation was ended: %(status)s.") % {"status": status}
            raise CommandError(f"{done} {text}")

    def _progress(self, operation: ReplayOperation, before: int, stop: Stop) -> None:
        if operation.done == before or operation.next_batch_at is None or stop.asked():
            return
        facts = {"done": operation.done, "all": operation.matched}
        self.stdout.write(gettext("%(done)d of %(all)d gone through") % facts)
        self.stdout.flush()

    def _say(self, text: str, operation: ReplayOperation) -> None:
        number = gettext("Replay operation %(number)d.") % {"number": operation.pk}
        self.stdout.write(f"{text % {'count': operation.matched}} {number}")


def _criteria(options: dict[str, Any]) -> Criteria:
    facts: dict[str, Any] = {field: options[name] for name, field in OPTIONS.items() if options[name] is not None}
    for field in ("ids", "statuses", "codes"):
        facts[field] = tuple(facts.get(field, ()))
    return Criteria(force=options["force"], **facts)


def _shown(moment: datetime) -> str:
    return timezone.localtime(moment).isoformat(timespec="seconds")


def _actor(name: str | None) -> AbstractBaseUser | None:
    if name is None:
        return None
    actor: AbstractBaseUser | None = (
        get_user_model()._default_manager.filter(**{get_user_model().USERNAME_FIELD: name}).first()
    )
    if actor is None:
        raise CommandError(gettext("There is no user %(name)s.") % {"name": name})
    return actor


def _time(text: str) -> datetime:
    """Return the time in an argument. Raises ArgumentTypeError for one whose zone has to be guessed."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ArgumentTypeError(
            gettext("%(text)s: a time with its zone is needed, such as 2026-05-01T08:00:00+08:00") % {"text": text}
        )
    return moment
