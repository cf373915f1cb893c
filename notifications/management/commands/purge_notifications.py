"""Delete old notifications, manually or from cron on sites without beat."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.conf import service_options
from notifications.maintenance.pruner import PurgeCounts, count_old, purge, retention_cutoff
from notifications.management.commands._base import Command as Base, positive_int, stop_on_signals

PROGRESS_ROWS = 10_000
"""Deleted rows between two lines of progress."""


class Command(Base):
    """Runs the same purge as beat, until no old row is left."""

    about = _(
        "Delete sent, dead and skipped notifications that have not changed for N days, with their attempts. Also "
        "delete rejected requests and finished jobs of that age. Notifications that wait or are being sent are not "
        "deleted. Workers may run at the same time. The command may be stopped and run again."
    )
    exit_codes = _(
        "Exit codes: 0 success, or stopped by a signal; 1 no number of days is given or set, or the database failed; "
        "2 invalid arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument(
            "--days",
            type=positive_int,
            metavar="N",
            help=gettext("Keep rows that changed in the last N days; RETENTION_DAYS by default."),
        )
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only count. Delete nothing."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete or count, and report."""
        days = options["days"] or service_options().retention_days
        if not days:
            raise CommandError(
                gettext("Nothing is deleted without a number of days: give --days, or set RETENTION_DAYS.")
            )
        self.reported, self.quiet = 0, not options["verbosity"]
        try:
            before = retention_cutoff(days)
            if options["dry_run"]:
                counts = count_old(before)
            else:
                with stop_on_signals() as stop:
                    counts = purge(before, should_stop=stop.requested, progress=self._progress)
        except Error as error:
            # The type only: the text may name the database's address.
            text = gettext(
                "The database failed: %(error)s. Deleted rows stay deleted. Run the command again for the rest."
            )
            raise CommandError(text % {"error": type(error).__name__}) from None
        if not self.quiet:
            self._report(counts, dry_run=options["dry_run"])

    def _progress(self, counts: PurgeCounts) -> None:
        deleted = counts.records + counts.rejected + counts.jobs + counts.signals
        if deleted - self.reported >= PROGRESS_ROWS and not self.quiet:
            self.reported = deleted
            self.stdout.write(gettext("%(count)d deleted so far") % {"count": deleted})
            self.stdout.flush()

    def _report(self, counts: PurgeCounts, *, dry_run: bool) -> None:
        if dry_run:
            text = ngettext(
                "%(count)d notification would be deleted.", "%(count)d notifications would be deleted.", counts.records
            )
        else:
            text = ngettext(
                "%(count)d notification was deleted.", "%(count)d notifications were deleted.", counts.records
            )
        self.stdout.write(text % {"count": counts.records})
        for label, count in (
            (gettext("of these, dead"), counts.dead),
            (gettext("their attempts"), counts.attempts),
            (gettext("rejected requests"), counts.rejected),
            (gettext("finished jobs"), counts.jobs),
            (gettext("signals that were not sent"), counts.signals),
        ):
            self.stdout.write(f"  {label}: {count}")
        if counts.has_more:
            self.stdout.write(gettext("Stopped early. Run the command again for the rest."))
