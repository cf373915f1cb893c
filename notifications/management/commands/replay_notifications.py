"""Let notifications be sent again: many at once, or where there is no browser."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.api import replay_notifications
from notifications.management.commands._base import Command as Base
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.service import OPERATION_BATCH
from notifications.states import Status

SELECTIONS = ("id", "status", "code", "since", "until", "channel")


class Command(Base):
    """Replays what the options select; they narrow each other."""

    about = _(
        "Let notifications be sent again with a fresh budget of attempts; their history stays. Takes dead and skipped "
        "ones; with --force also sent and cancelled ones. The options that select narrow each other; at least one is "
        "needed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        select = parser.add_argument_group(gettext("which ones"))
        select.add_argument("--id", type=int, action="append", metavar="N", help=gettext("This record; repeatable."))
        select.add_argument("--status", choices=Status.values, help=gettext("Those in this state."))
        select.add_argument("--code", help=gettext("Those whose last error has this code."))
        select.add_argument("--since", type=_time, metavar="TIME", help=gettext("Requested at this time or later."))
        select.add_argument("--until", type=_time, metavar="TIME", help=gettext("Requested before this time."))
        select.add_argument("--channel", help=gettext("Those of this channel."))
        parser.add_argument("--reason", default="", help=gettext("Why; kept in the log. Needed unless --dry-run."))
        parser.add_argument("--actor", metavar="USERNAME", help=gettext("Who; kept in the history of each record."))
        parser.add_argument("--force", action="store_true", help=gettext("Also sent ones: the reader gets them twice."))
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only say what would be replayed."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Count, replay, say what was done."""
        if not any(options[name] is not None for name in SELECTIONS):
            raise CommandError(
                gettext("Say which ones: %(options)s.") % {"options": ", ".join(f"--{name}" for name in SELECTIONS)}
            )
        reason = options["reason"].strip()
        if not reason and not options["dry_run"]:
            raise CommandError(gettext("--reason is needed: it is what the next person reads in the log."))
        actor = _actor(options["actor"])
        records = _selected(options)
        selected = sum(records.by_status().values())
        if options["dry_run"]:
            self._foretell(records, options["force"], selected)
            return
        done = replay_notifications(records, actor, reason, force=options["force"], progress=self._progress)
        text = ngettext("%(count)d was replayed.", "%(count)d were replayed.", done) % {"count": done}
        left = max(selected - done, 0)
        rest = ngettext("%(count)d was left alone.", "%(count)d were left alone.", left) % {"count": left}
        self.stdout.write(f"{text} {rest}")

    def _foretell(self, records: NotificationQuerySet, force: bool, selected: int) -> None:
        taken = records.replayable(force=force).by_status()
        count = sum(taken.values())
        text = ngettext(
            "%(count)d of %(all)d selected would be replayed.",
            "%(count)d of %(all)d selected would be replayed.",
            count,
        )
        self.stdout.write(text % {"count": count, "all": selected})
        for status, number in sorted(records.by_status().items()):
            facts = {"status": Status(status).label, "taken": taken.get(status, 0), "all": number}
            self.stdout.write("  " + gettext("%(status)s: %(taken)d of %(all)d") % facts)

    def _progress(self, done: int, count: int) -> None:
        if count > OPERATION_BATCH:
            self.stdout.write(gettext("%(done)d of %(all)d gone through") % {"done": done, "all": count})
            self.stdout.flush()


def _selected(options: dict[str, Any]) -> NotificationQuerySet:
    """Return the records that match every option given."""
    records = NotificationRecord.objects.all()
    lookups = {
        "id": "pk__in",
        "status": "status",
        "code": "last_error_code",
        "since": "created_at__gte",
        "until": "created_at__lt",
        "channel": "channel",
    }
    return records.filter(**{lookups[name]: options[name] for name in SELECTIONS if options[name] is not None})


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
