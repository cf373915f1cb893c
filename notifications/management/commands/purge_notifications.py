"""Delete what is older than the time it is kept: by hand, or from cron where there is no beat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.conf import service_options
from notifications.maintenance.pruner import Purged, count_old, purge, retention_cutoff
from notifications.management.commands._base import Command as Base, positive_int, stop_on_signals

STEP = 10_000
"""How many deleted rows make a line of progress."""


class Command(Base):
    """Runs the same purge as beat, to its end."""

    about = _(
        "Delete notifications that were sent, dead or skipped, and have not changed for so many days, with their "
        "attempts, and rejected requests as old. What waits or is being sent stays, however old. Safe beside running "
        "workers; may be stopped and run again."
    )
    exit_codes = _(
        "Exit codes: 0 done, or stopped by a signal; 1 no number of days is given or set, or the database failed; "
        "2 unreadable arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument(
            "--days",
            type=positive_int,
            metavar="N",
            help=gettext("Keep what changed in the last N days; NOTIFICATIONS_RETENTION_DAYS by default."),
        )
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only count; nothing is deleted."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete or count, and say what."""
        days = options["days"] or service_options().retention_days
        if not days:
            raise CommandError(gettext("Everything is kept: give --days, or set NOTIFICATIONS_RETENTION_DAYS."))
        self.told, self.quiet = 0, not options["verbosity"]
        try:
            before = retention_cutoff(days)
            if options["dry_run"]:
                done = count_old(before)
            else:
                with stop_on_signals() as stop:
                    done = purge(before, should_stop=stop.asked, progress=self._progress)
        except Error as error:
            # The type only: the text may name the database's address.
            text = gettext("The database failed: %(error)s. Run it again: what was done stays done.")
            raise CommandError(text % {"error": type(error).__name__}) from None
        if not self.quiet:
            self._report(done, dry_run=options["dry_run"])

    def _progress(self, done: Purged) -> None:
        deleted = done.records + done.rejected + done.jobs
        if deleted - self.told >= STEP and not self.quiet:
            self.told = deleted
            self.stdout.write(gettext("%(count)d deleted so far") % {"count": deleted})
            self.stdout.flush()

    def _report(self, done: Purged, *, dry_run: bool) -> None:
        if dry_run:
            text = ngettext(
                "%(count)d notification would be deleted.", "%(count)d notifications would be deleted.", done.records
            )
        else:
            text = ngettext(
                "%(count)d notification was deleted.", "%(count)d notifications were deleted.", done.records
            )
        self.stdout.write(text % {"count": done.records})
        for label, count in (
            (gettext("dead ones among them"), done.dead),
            (gettext("their attempts"), done.attempts),
            (gettext("rejected requests"), done.rejected),
            (gettext("due jobs that were done"), done.jobs),
        ):
            self.stdout.write(f"  {label}: {count}")
        if done.more:
            self.stdout.write(gettext("Stopped before the end; run it again for the rest."))
