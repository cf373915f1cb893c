"""Remove secrets from answers of endpoints that earlier versions stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.db.models import Model, QuerySet
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.management.commands._base import Command as Base
from notifications.models import DeliveryAttempt, NotificationRecord, UserNotificationChannel
from notifications.providers.answer_redaction import Redactor
from notifications.security.address_secrets import secret_parts
from notifications.security.log_redaction import redact_text
from notifications.security.secrets import SecretUnreadable

BATCH_ROWS = 500
"""Rows that one query reads."""
RECORD_FIELDS = ("last_error", "provider_message_id", "provider_response")
ATTEMPT_FIELDS = ("error", "response_excerpt")
Row = TypeVar("Row", bound=Model)


@dataclass(slots=True)
class RedactionCounts:
    """Counts of what the command read and changed."""

    channels: int = 0
    records: int = 0
    """Records that had a secret."""
    attempts: int = 0
    """Attempts that had a secret."""
    unreadable: set[int] = field(default_factory=set)
    """Ids of channels with a secret that no key decrypts."""


class Command(Base):
    """Reads the records of each channel once, and writes those that contain its address or its token."""

    about = _(
        "Find parts of webhook addresses and tokens in the stored answers of endpoints, and replace them by asterisks. "
        "Earlier versions hid the last part of an address only. The addresses that are stored now are looked for; keys "
        "in the form of a Feishu address are found also if they were replaced since. Notifications may be sent at the "
        "same time. The command may be stopped and run again."
    )
    exit_codes = _(
        "Exit codes: 0 success; 1 no key decrypts some secrets, whose channels are listed on stderr, or the database "
        "failed; 2 invalid arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--dry-run", action="store_true", help=gettext("Only count. Change nothing."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Redact, count, and list channels that no key decrypts."""
        counts = RedactionCounts()
        try:
            for channel in _batches(UserNotificationChannel.objects.only("user_id", "channel", "label", *_SECRETS)):
                self._redact(channel, counts, dry_run=options["dry_run"])
        except Error as error:
            text = gettext("The database failed: %(error)s. Run the command again for the rest.")
            raise CommandError(text % {"error": type(error).__name__}) from None
        if options["verbosity"]:
            self._report(counts, dry_run=options["dry_run"])
        if counts.unreadable:
            text = ngettext(
                "%(count)d channel has a secret that no configured key decrypts: %(ids)s.",
                "%(count)d channels have a secret that no configured key decrypts: %(ids)s.",
                len(counts.unreadable),
            )
            ids = ", ".join(map(str, sorted(counts.unreadable)))
            raise CommandError(text % {"count": len(counts.unreadable), "ids": ids})

    def _redact(self, channel: UserNotificationChannel, counts: RedactionCounts, *, dry_run: bool) -> None:
        counts.channels += 1
        try:
            redactor = Redactor(channel.bearer_token.reveal().split(","), secret_parts(channel.webhook_url.reveal()))
        except SecretUnreadable:
            counts.unreadable.add(channel.pk)
            return
        records = NotificationRecord.objects.of_endpoint(channel)
        for record in _batches(records.only("pk", *RECORD_FIELDS)):
            counts.records += _redact_row(record, RECORD_FIELDS, redactor, dry_run=dry_run)
        attempts = DeliveryAttempt.objects.filter(record__in=records)
        for attempt in _batches(attempts.only("pk", *ATTEMPT_FIELDS)):
            counts.attempts += _redact_row(attempt, ATTEMPT_FIELDS, redactor, dry_run=dry_run)

    def _report(self, counts: RedactionCounts, *, dry_run: bool) -> None:
        text = ngettext("%(count)d channel was checked.", "%(count)d channels were checked.", counts.channels)
        self.stdout.write(text % {"count": counts.channels})
        changed = _("contain a secret") if dry_run else _("had a secret, which was replaced")
        for label, number in ((_("notifications"), counts.records), (_("delivery attempts"), counts.attempts)):
            self.stdout.write(f"  {label}: {number} {changed}")


_SECRETS = ("webhook_url", "bearer_token")


def _redact_row(row: Model, fields: tuple[str, ...], redactor: Redactor, *, dry_run: bool) -> bool:
    """Write the row without secrets, unless it changed meanwhile. Return whether it had one."""
    old = {name: getattr(row, name) for name in fields}
    new = {
        name: redactor.redact(redact_text(value) if isinstance(value, str) else value) for name, value in old.items()
    }
    changed = {name: value for name, value in new.items() if value != old[name]}
    if changed and not dry_run:
        same = {name: old[name] for name in changed}
        return bool(type(row)._default_manager.filter(pk=row.pk, **same).update(**changed))
    return bool(changed)


def _batches(rows: QuerySet[Row]) -> Iterator[Row]:
    """Yield all rows by primary key. No transaction stays open between batches."""
    last, ordered = 0, rows.order_by("pk")
    while batch := list(ordered.filter(pk__gt=last)[:BATCH_ROWS]):
        yield from batch
        last = batch[-1].pk
