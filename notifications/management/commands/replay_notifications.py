"""Replay many notifications, or replay them on a machine without a browser."""

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
from notifications.management.commands._base import Command as Base, StopSignal, positive_int, stop_on_signals
from notifications.models import ReplayOperation
from notifications.querysets import primary_users
from notifications.replay.criteria import Criteria, InvalidCriteria, breakdown
from notifications.replay.operations import OperationExists, create_operation
from notifications.replay.runner import run_due_batches
from notifications.states import UNDELIVERED, OperationStatus, Status
from notifications.user_keys import UserKey, to_user_key

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
"""Field of Criteria by option. Each option selects records."""
WAIT_STEP_SECONDS = 1.0
"""Seconds between two lines of progress."""


class Command(Base):
    """Creates a replay operation, and runs its batches beside the workers."""

    about = _(
        "Replay notifications with a new budget of attempts. Their earlier attempts stay. Dead and skipped "
        "notifications are replayed; with --force also sent and cancelled ones. A notification must match all "
        "selecting options; at least one is required. The command creates a replay operation, which the admin shows "
        "and can cancel."
    )
    exit_codes = _("Exit codes: 0 success; 1 failure, the reason is on stderr; 2 invalid arguments.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        select = parser.add_argument_group(gettext("selection"))
        select.add_argument(
            "--id", type=int, action="append", metavar="N", help=gettext("The notification with this id; repeatable.")
        )
        select.add_argument(
            "--status",
            action="append",
            choices=[*map(str, UNDELIVERED), str(Status.SENT)],
            help=gettext("Notifications with this status; repeatable."),
        )
        select.add_argument(
            "--code", action="append", help=gettext("Notifications whose last error has this code; repeatable.")
        )
        select.add_argument("--channel", help=gettext("Notifications of this channel."))
        select.add_argument(
            "--user", type=_user_key, metavar="ID", help=gettext("Notifications of the user with this id.")
        )
        select.add_argument("--key", help=gettext("The notification with this dedupe key."))
        select.add_argument("--trace", help=gettext("Notifications with this trace id."))
        select.add_argument("--preview", help=gettext("Notifications with this preview id."))
        select.add_argument("--since", type=_time, metavar="TIME", help=gettext("Requested at this time or later."))
        select.add_argument("--until", type=_time, metavar="TIME", help=gettext("Requested before this time."))
        select.add_argument(
            "--changed-since",
            type=_time,
            metavar="TIME",
            help=gettext("Changed last (became dead) at this time or later."),
        )
        select.add_argument(
            "--changed-until", type=_time, metavar="TIME", help=gettext("Changed last before this time.")
        )
        parser.add_argument(
            "--reason", default="", help=gettext("The reason, for the log. Required unless --dry-run is given.")
        )
        parser.add_argument(
            "--actor", metavar="USERNAME", help=gettext("The user who replays, for the history of each record.")
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help=gettext("Also replay sent and cancelled notifications. The recipient gets a sent one twice."),
        )
        parser.add_argument(
            "--rate",
            type=positive_int,
            metavar="N",
            help=gettext("At most N notifications per minute, over all processes."),
        )
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only print what would be replayed."))
        parser.add_argument(
            "--wait",
            action=BooleanOptionalAction,
            default=True,
            help=gettext(
                "Run the operation in this process too, and print its progress (default); or leave it to the workers."
            ),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Count, create the operation, and print the result."""
        if not any(options[name] is not None for name in OPTIONS):
            names = ", ".join(f"--{name.replace('_', '-')}" for name in OPTIONS)
            raise CommandError(gettext("Select notifications with at least one of: %(options)s.") % {"options": names})
        reason = options["reason"].strip()
        if not reason and not options["dry_run"]:
            raise CommandError(gettext("--reason is required. The log shows it."))
        actor = _actor(options["actor"])
        try:
            criteria = _criteria(options)
            if options["dry_run"]:
                self._preview(criteria)
                return
            operation = create_operation(criteria, actor, reason, rate=options["rate"])
            self._report_expired(criteria, operation.as_of)
            if options["wait"]:
                self._wait(operation)
            else:
                self._report(
                    ngettext("%(count)d will be replayed.", "%(count)d will be replayed.", operation.matched), operation
                )
        except OperationExists as error:
            text = gettext("Nothing was started: replay operation %(number)d has the same criteria.")
            raise CommandError(text % {"number": error.operation.pk}) from None
        except InvalidCriteria as error:
            options_of = {field: f"--{name.replace('_', '-')}" for name, field in OPTIONS.items()}
            raise CommandError(
                "; ".join(f"{options_of.get(field, f'--{field}')}: {reason}" for field, reason in error.errors)
            ) from None
        except Error as error:
            # The type only: the text may name the database's address.
            text = gettext("The database failed: %(error)s. An operation that was created continues in the workers.")
            raise CommandError(text % {"error": type(error).__name__}) from None

    def _preview(self, criteria: Criteria) -> None:
        now = database_now()
        groups = breakdown(criteria, now)
        count = sum(group.count for group in groups)
        self.stdout.write(
            ngettext("%(count)d would be replayed.", "%(count)d would be replayed.", count) % {"count": count}
        )
        for group in groups:
            values = {
                "status": Status(group.status).label,
                "code": group.code or "-",
                "channel": group.channel,
                "count": group.count,
                "oldest": _format_time(group.oldest),
                "newest": _format_time(group.newest),
            }
            text = gettext("%(status)s, %(code)s, %(channel)s: %(count)d, changed from %(oldest)s to %(newest)s")
            self.stdout.write("  " + text % values)
        self._report_expired(criteria, now)

    def _report_expired(self, criteria: Criteria, as_of: datetime) -> None:
        if count := criteria.select(as_of, expired=True).count():
            text = ngettext(
                "%(count)d is left out: it has expired.", "%(count)d are left out: they have expired.", count
            )
            self.stdout.write(text % {"count": count})

    def _wait(self, operation: ReplayOperation) -> None:
        with stop_on_signals() as stop:
            while operation.next_batch_at is not None and not stop.requested():
                before = operation.done
                run_due_batches(WAIT_STEP_SECONDS, should_stop=stop.requested, only=operation)
                operation.refresh_from_db(from_queryset=ReplayOperation.objects.all())
                self._progress(operation, before, stop)
        unchanged = max(operation.matched - operation.done, 0)
        done = ngettext("%(count)d was replayed.", "%(count)d were replayed.", operation.done) % {
            "count": operation.done
        }
        if operation.status == OperationStatus.DONE:
            rest = ngettext("%(count)d was not changed.", "%(count)d were not changed.", unchanged) % {
                "count": unchanged
            }
            self.stdout.write(f"{done} {rest}")
        elif operation.next_batch_at is not None:
            rest = gettext("The workers continue with the rest.")
            self.stdout.write(f"{done} {rest}")
        else:
            status = OperationStatus(operation.status).label
            text = gettext("The operation ended: %(status)s.") % {"status": status}
            raise CommandError(f"{done} {text}")

    def _progress(self, operation: ReplayOperation, before: int, stop: StopSignal) -> None:
        if operation.done == before or operation.next_batch_at is None or stop.requested():
            return
        progress = {"done": operation.done, "all": operation.matched}
        self.stdout.write(gettext("%(done)d of %(all)d processed") % progress)
        self.stdout.flush()

    def _report(self, text: str, operation: ReplayOperation) -> None:
        number = gettext("Replay operation %(number)d.") % {"number": operation.pk}
        self.stdout.write(f"{text % {'count': operation.matched}} {number}")


def _criteria(options: dict[str, Any]) -> Criteria:
    values: dict[str, Any] = {field: options[name] for name, field in OPTIONS.items() if options[name] is not None}
    for field in ("ids", "statuses", "codes"):
        values[field] = tuple(values.get(field, ()))
    return Criteria(force=options["force"], **values)


def _format_time(moment: datetime) -> str:
    return timezone.localtime(moment).isoformat(timespec="seconds")


def _actor(name: str | None) -> AbstractBaseUser | None:
    if name is None:
        return None
    actor: AbstractBaseUser | None = primary_users().filter(**{get_user_model().USERNAME_FIELD: name}).first()
    if actor is None:
        raise CommandError(gettext("There is no user %(name)s.") % {"name": name})
    return actor


def _user_key(text: str) -> UserKey:
    """Return the user's key in an argument. Raises ArgumentTypeError if no user can have it."""
    if (key := to_user_key(text)) is None:
        raise ArgumentTypeError(gettext("must be a user id"))
    return key


def _time(text: str) -> datetime:
    """Return the time in an argument. Raises ArgumentTypeError if it has no time zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ArgumentTypeError(
            gettext("%(text)s: a time with a time zone is required, such as 2026-05-01T08:00:00+08:00") % {"text": text}
        )
    return moment
