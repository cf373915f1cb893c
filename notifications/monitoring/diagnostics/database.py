"""What the database says: clocks, migrations, sweeps, workers, what is due, and whether keys read what is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator

from django.db import connection
from django.utils.translation import gettext, ngettext

from notifications.conf import service_options
from notifications.models import UserNotificationChannel
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, Sign
from notifications.monitoring.indicators import oldest_due_age, silence
from notifications.monitoring.readiness import pending_migrations
from notifications.security.secrets import SecretUnreadable

SKEW = 2.0
"""Seconds that our clock and PostgreSQL's may differ."""


def clock() -> Iterator[Sign]:
    """Whether PostgreSQL answers, and agrees with us on the time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        before = time.time()
        cursor.execute("SELECT EXTRACT(epoch FROM clock_timestamp())::float8")
        skew = cursor.fetchone()[0] - (before + time.time()) / 2
    text = gettext("it answers; its clock and ours differ by %(seconds).1f s") % {"seconds": abs(skew)}
    if abs(skew) <= SKEW:
        yield Sign(name="database", state=OK, text=text)
    else:
        remedy = gettext("Let NTP set both clocks. Delivery goes by PostgreSQL's; logs and Retry-After dates by ours.")
        yield Sign(name="database", state=WARNING, text=text, remedy=remedy)


def migrations() -> Iterator[Sign]:
    """Whether the tables are what this code expects."""
    if pending := pending_migrations():
        text = gettext("not applied: %(names)s") % {"names": ", ".join(pending)}
        yield Sign(name="migrations", state=ERROR, text=text, remedy=gettext("Run manage.py migrate."))
    else:
        yield Sign(name="migrations", state=OK, text=gettext("all are applied"))


def sweep() -> Iterator[Sign]:
    """Whether sweeps come to their end, and who could run them."""
    silent = silence()
    if silent.too_long:
        if silent.sweep is None:
            text = gettext("there never was one")
        else:
            text = gettext("the last one ended %(seconds)d s ago") % {"seconds": silent.sweep}
        if silent.beat is None or silent.beat > service_options().sweep_limit:
            remedy = gettext("Start beat and a worker, or manage.py deliver_due --forever.")
        else:
            remedy = gettext("Beat is heard of, but no sweep comes to its end: look at the workers' logs.")
        yield Sign(name="sweep", state=ERROR, text=text, remedy=remedy)
    else:
        text = gettext("the last one ended %(seconds)d s ago") % {"seconds": silent.sweep or 0}
        yield Sign(name="sweep", state=OK, text=text)
    count = ngettext(
        "%(count)d worker process was heard of within a minute",
        "%(count)d worker processes were heard of within a minute",
        silent.workers,
    ) % {"count": silent.workers}
    if silent.workers:
        yield Sign(name="workers", state=OK, text=count)
    else:
        remedy = gettext("Start one. manage.py deliver_due --forever is none, but delivers as well.")
        yield Sign(name="workers", state=WARNING, text=count, remedy=remedy)


def due() -> Iterator[Sign]:
    """Whether anything waits for too long."""
    age, limit = oldest_due_age(), service_options().due_age_limit
    text = gettext("the oldest has been due for %(age)d s; %(limit)d s are allowed") % {"age": age, "limit": limit}
    if age <= limit:
        yield Sign(name="due", state=OK, text=text)
    else:
        remedy = gettext("Start more workers; is there a provider for every channel? See docs/operations.md.")
        yield Sign(name="due", state=ERROR, text=text, remedy=remedy)


def keys() -> Iterator[Sign]:
    """Whether each stored address and token can be read."""
    unreadable: list[int] = []
    rows = UserNotificationChannel.objects.only("pk", "webhook_url", "bearer_token").order_by("pk")
    for channel in rows.iterator(chunk_size=1000):
        try:
            channel.webhook_url.reveal()
            channel.bearer_token.reveal()
        except SecretUnreadable:
            unreadable.append(channel.pk)
    if unreadable:
        names = ", ".join(map(str, unreadable[:10])) + (", ..." if len(unreadable) > 10 else "")
        text = ngettext(
            "%(count)d channel cannot be read: %(names)s",
            "%(count)d channels cannot be read: %(names)s",
            len(unreadable),
        ) % {"count": len(unreadable), "names": names}
        remedy = gettext("Put the key they were stored with back into NOTIFICATIONS_ENCRYPTION_KEYS, as the last.")
        yield Sign(name="keys", state=ERROR, text=text, remedy=remedy)
    else:
        yield Sign(name="keys", state=OK, text=gettext("every channel can be read"))
