"""Checks of PostgreSQL's clock and of the keys that encrypt stored secrets."""

from __future__ import annotations

import time
from collections.abc import Iterator

from django.db import connection
from django.utils.translation import gettext, ngettext

from notifications.models import UserNotificationChannel
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, CheckResult
from notifications.security.secrets import SecretUnreadable

MAX_CLOCK_SKEW_SECONDS = 2.0
"""The clocks of this machine and of PostgreSQL may differ by this much."""
MAX_NAMED_CHANNELS = 10
"""Unreadable channels that are listed by their ids."""


def check_clock() -> Iterator[CheckResult]:
    """Check that PostgreSQL answers and has the same time as this machine.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        before = time.time()
        cursor.execute("SELECT EXTRACT(epoch FROM clock_timestamp())::float8")
        skew = cursor.fetchone()[0] - (before + time.time()) / 2
    text = gettext("PostgreSQL answers; its clock and ours differ by %(seconds).1f s.") % {"seconds": abs(skew)}
    if abs(skew) <= MAX_CLOCK_SKEW_SECONDS:
        yield CheckResult(name="database", state=OK, text=text)
    else:
        remedy = gettext(
            "Set both clocks by NTP. Delivery uses PostgreSQL's clock; logs and Retry-After dates use this machine's."
        )
        yield CheckResult(name="database", state=WARNING, text=text, remedy=remedy)


def check_keys() -> Iterator[CheckResult]:
    """Check that the configured keys decrypt each stored address and token.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    unreadable: list[int] = []
    rows = UserNotificationChannel.objects.only("pk", "webhook_url", "bearer_token").order_by("pk")
    for channel in rows.iterator(chunk_size=1000):
        try:
            channel.webhook_url.reveal()
            channel.bearer_token.reveal()
        except SecretUnreadable:
            unreadable.append(channel.pk)
    if unreadable:
        ids = ", ".join(map(str, unreadable[:MAX_NAMED_CHANNELS]))
        text = ngettext(
            "%(count)d channel cannot be decrypted: %(names)s",
            "%(count)d channels cannot be decrypted: %(names)s",
            len(unreadable),
        ) % {"count": len(unreadable), "names": ids + (", ..." if len(unreadable) > MAX_NAMED_CHANNELS else "")}
        remedy = gettext('Add the key they were encrypted with to NOTIFICATIONS["ENCRYPTION_KEYS"], as the last one.')
        yield CheckResult(name="keys", state=ERROR, text=text, remedy=remedy)
    else:
        yield CheckResult(name="keys", state=OK, text=gettext("Every channel can be decrypted."))
