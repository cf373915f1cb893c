"""Encrypt stored webhook addresses and tokens with the newest key, so that an older key can be removed."""

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

BATCH_CHANNELS = 500
"""Channels that one query reads. Each batch prints a line of progress."""
SECRETS = tuple(
    field.attname for field in UserNotificationChannel._meta.concrete_fields if isinstance(field, SecretField)
)


@dataclass(slots=True)
class RotationCounts:
    """Counts of secrets by what the rotation did."""

    channels: int = 0
    current: int = 0
    """Secrets that were encrypted with the newest key already."""
    rotated: int = 0
    """Secrets of an older key that were encrypted again, or would be in a dry run."""
    changed: int = 0
    """Secrets that another process changed after they were read. The newer value stays."""
    unreadable: set[int] = field(default_factory=set)
    """Ids of channels with a secret that no key decrypts."""


class Command(Base):
    """Processes all channels once. Each secret is one UPDATE, so that no other process waits."""

    about = _(
        "Encrypt stored webhook addresses and tokens again with the newest of ENCRYPTION_KEYS. Notifications may be "
        "sent and channels changed at the same time. Secrets of the newest key are skipped, so the command may be "
        "stopped and run again."
    )
    exit_codes = _(
        "Exit codes: 0 success, or with --dry-run: every secret can be decrypted; 1 no key decrypts some secrets, "
        "whose channels are listed on stderr, or the database failed; 2 invalid arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only count. Change nothing."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, count, and list channels that no key decrypts."""
        count = RotationCounts()
        try:
            Secret("").rotated()  # without a valid key every channel would look unreadable
            total = UserNotificationChannel.objects.count()
            for batch in _batches():
                for channel in batch:
                    self._rotate(channel, count, dry_run=options["dry_run"])
                if total > BATCH_CHANNELS and options["verbosity"]:
                    progress = {"done": count.channels, "all": max(total, count.channels)}
                    self.stdout.write(gettext("%(done)d of %(all)d processed") % progress)
                    self.stdout.flush()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except Error as error:
            text = gettext("The database failed: %(error)s. Run the command again for the rest.")
            raise CommandError(text % {"error": type(error).__name__}) from None
        if options["verbosity"]:
            self._report(count, dry_run=options["dry_run"])
        if count.unreadable:
            text = ngettext(
                "%(count)d channel has a secret that no configured key decrypts: %(ids)s.",
                "%(count)d channels have a secret that no configured key decrypts: %(ids)s.",
                len(count.unreadable),
            )
            ids = ", ".join(map(str, sorted(count.unreadable)))
            raise CommandError(text % {"count": len(count.unreadable), "ids": ids})

    def _rotate(self, channel: UserNotificationChannel, count: RotationCounts, *, dry_run: bool) -> None:
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
            # The filter on the old value protects a secret that a user entered meanwhile.
            elif UserNotificationChannel.objects.filter(pk=channel.pk, **{name: old}).update(**{name: new}):
                count.rotated += 1
            else:
                count.changed += 1

    def _report(self, count: RotationCounts, *, dry_run: bool) -> None:
        lines = [(gettext("encrypted with the newest key already"), count.current)]
        if dry_run:
            lines.append((gettext("encrypted with an older key, would be encrypted again"), count.rotated))
        else:
            lines.append((gettext("encrypted again with the newest key"), count.rotated))
            lines.append((gettext("changed by another process meanwhile; run the command again"), count.changed))
        text = ngettext("%(count)d channel was checked.", "%(count)d channels were checked.", count.channels)
        self.stdout.write(text % {"count": count.channels})
        for label, number in lines:
            self.stdout.write(f"  {label}: {number}")


def _batches() -> Iterator[list[UserNotificationChannel]]:
    """Yield all channels in batches by primary key. No transaction stays open between batches."""
    last = 0
    channels = UserNotificationChannel.objects.order_by("pk").only("pk", *SECRETS)
    while batch := list(channels.filter(pk__gt=last)[:BATCH_CHANNELS]):
        yield batch
        last = batch[-1].pk
