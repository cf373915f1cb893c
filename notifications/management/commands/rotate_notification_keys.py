"""Bring stored webhook addresses and tokens under the newest key, so that an older one can be removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.management.commands._base import Command as Base
from notifications.models import UserNotificationChannel
from notifications.security.fields import SecretField
from notifications.security.secrets import Secret, SecretUnreadable

BATCH = 500
"""Channels read at once, and how often progress is told."""
SECRETS = tuple(
    field.attname for field in UserNotificationChannel._meta.concrete_fields if isinstance(field, SecretField)
)


@dataclass(slots=True)
class Count:
    """What was found among the channels, and done."""

    channels: int = 0
    current: int = 0
    """Secrets that the newest key reads."""
    rotated: int = 0
    """Secrets of an older key: now under the newest, or in a dry run to be brought there."""
    changed: int = 0
    """Secrets that somebody else changed between our look and our write; theirs stays."""
    unreadable: set[int] = field(default_factory=set)
    """Channels with a secret that no key reads."""


class Command(Base):
    """Goes through all channels once, one statement for each secret: nobody waits for it, and it may be stopped."""

    about = _(
        "Encrypt stored webhook addresses and tokens anew with the newest of NOTIFICATIONS_ENCRYPTION_KEYS. Safe while "
        "notifications are sent and users change their channels; what is under the newest key already is left alone, "
        "so it may be stopped and run again."
    )
    exit_codes = _(
        "Exit codes: 0 done, or with --dry-run: every secret can be read; 1 some cannot be read with any key, their "
        "channels are named on stderr, or the database failed; 2 unreadable arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only count; nothing is changed."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, count, name what no key reads."""
        count = Count()
        try:
            Secret("").rotated()  # no key, or one that is none, would make every channel look unreadable
            total = UserNotificationChannel.objects.count()
            for batch in _batches():
                for channel in batch:
                    self._rotate(channel, count, dry_run=options["dry_run"])
                if total > BATCH and options["verbosity"]:
                    facts = {"done": count.channels, "all": max(total, count.channels)}
                    self.stdout.write(gettext("%(done)d of %(all)d gone through") % facts)
                    self.stdout.flush()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except Error as error:
            text = gettext("The database failed: %(error)s. Run it again: what was done stays done.")
            raise CommandError(text % {"error": type(error).__name__}) from None
        if options["verbosity"]:
            self._report(count, dry_run=options["dry_run"])
        if count.unreadable:
            text = ngettext(
                "%(count)d channel has a secret that no configured key reads: %(ids)s.",
                "%(count)d channels have a secret that no configured key reads: %(ids)s.",
                len(count.unreadable),
            )
            ids = ", ".join(map(str, sorted(count.unreadable)))
            raise CommandError(text % {"count": len(count.unreadable), "ids": ids})

    def _rotate(self, channel: UserNotificationChannel, count: Count, *, dry_run: bool) -> None:
        count.channels += 1
        for name in SECRETS:
            old: Secret = getattr(channel, name)
            try:
                new = old.rotated()
            except SecretUnreadable:
                count.unreadable.add(channel.pk)
                continue
            if new == old:
                count.current += bool(old)
            elif dry_run:
                count.rotated += 1
            # Only where the column is what we read: whatever a user entered meanwhile is not ours to overwrite.
            elif UserNotificationChannel.objects.filter(pk=channel.pk, **{name: old}).update(**{name: new}):
                count.rotated += 1
            else:
                count.changed += 1

    def _report(self, count: Count, *, dry_run: bool) -> None:
        lines = [(gettext("under the newest key already"), count.current)]
        if dry_run:
            lines.append((gettext("under an older key, would be encrypted anew"), count.rotated))
        else:
            lines.append((gettext("encrypted anew with the newest key"), count.rotated))
            lines.append((gettext("changed by somebody else meanwhile; run it again to see"), count.changed))
        text = ngettext("%(count)d channel was looked at.", "%(count)d channels were looked at.", count.channels)
        self.stdout.write(text % {"count": count.channels})
        for label, number in lines:
            self.stdout.write(f"  {label}: {number}")


def _batches() -> Iterator[list[UserNotificationChannel]]:
    """Yield all channels by primary key, reading no more than a batch at once and keeping no transaction open."""
    last = 0
    channels = UserNotificationChannel.objects.order_by("pk").only("pk", *SECRETS)
    while batch := list(channels.filter(pk__gt=last)[:BATCH]):
        yield batch
        last = batch[-1].pk
