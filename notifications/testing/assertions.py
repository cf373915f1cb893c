"""Was this user to be told? Asked of the table, with an answer that shows what was requested instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

    from notifications.models import NotificationRecord

SHOWN = 10
"""Records a failure message shows."""
FACTS = ("dedupe_key", "summary_text", "target_url", "status")
"""What is shown of each, besides the fields that were asked for."""


def assert_notified(user: AbstractBaseUser | int, **fields: Any) -> NotificationRecord:
    """Return the newest notification requested for this user with these fields.

    user: a user or a user id. fields: columns of the record and the values they must have, such as
    dedupe_key="42:moved:7" or status="sent".
    Raises AssertionError saying what was requested instead; TypeError for a field that records do not have.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    records = _records(fields)
    for record in records:
        if record.user_id == _key(user) and not _differences(record, fields):
            return record
    raise AssertionError(
        "\n".join([f"no notification was requested for {_wanted(user, fields)}", *_seen(records, user, fields)])
    )


def assert_not_notified(user: AbstractBaseUser | int, **fields: Any) -> None:
    """Assert that nothing was requested for this user with these fields; without fields: nothing at all.

    Arguments as for assert_notified(). Raises AssertionError showing what was requested.
    """
    __tracebackhide__ = True
    found = [record for record in _records(fields) if record.user_id == _key(user) and not _differences(record, fields)]
    if found:
        lines = [_line(record, FACTS) for record in found[:SHOWN]]
        raise AssertionError("\n".join([f"{len(found)} requested for {_wanted(user, fields)}:", *lines, *_more(found)]))


def _records(fields: dict[str, Any]) -> list[NotificationRecord]:
    """Return all records, newest first. Raises TypeError for a field they do not have."""
    from notifications.models import NotificationRecord  # not before Django is set up

    known = {field.attname for field in NotificationRecord._meta.concrete_fields}
    if unknown := sorted(set(fields) - known):
        raise TypeError(f"notifications have no {', '.join(unknown)}; they have {', '.join(sorted(known))}")
    return list(NotificationRecord.objects.order_by("-id"))


def _key(user: AbstractBaseUser | int) -> int:
    key: int = user if isinstance(user, int) else user.pk
    return key


def _differences(record: NotificationRecord, fields: dict[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if getattr(record, name) != value]


def _wanted(user: AbstractBaseUser | int, fields: dict[str, Any]) -> str:
    name = f"user {user}" if isinstance(user, int) else f"user {user.pk} ({user.get_username()})"
    conditions = ", ".join(f"{field}={value!r}" for field, value in fields.items())
    return f"{name} with {conditions}" if conditions else name


def _seen(records: list[NotificationRecord], user: AbstractBaseUser | int, fields: dict[str, Any]) -> list[str]:
    """Return what was requested instead: this user's first, those that come closest before the others."""
    lines: list[str] = []
    for title, theirs in (("for this user:", True), ("for other users:", False)):
        some = [record for record in records if (record.user_id == _key(user)) == theirs]
        some.sort(key=lambda record: len(_differences(record, fields)))
        if some:
            lines += [
                title,
                *(_line(record, dict.fromkeys([*_differences(record, fields), *FACTS])) for record in some[:SHOWN]),
            ]
            lines += _more(some)
    return [*(lines or ["nothing was requested at all"]), *_refused()]


def _line(record: NotificationRecord, names: Any) -> str:
    facts = ", ".join(f"{name}={getattr(record, name)!s:.80}" for name in names)
    return f"  #{record.pk} user {record.user_id}: {facts}"


def _more(records: list[NotificationRecord]) -> list[str]:
    return [f"  and {len(records) - SHOWN} more"] if len(records) > SHOWN else []


def _refused() -> list[str]:
    """Return what was refused at the door: the likeliest reason why a request over Celery is not there."""
    from notifications.models import RejectedRequest

    rejected = list(RejectedRequest.objects.order_by("-id")[:SHOWN])
    return ["refused:", *(f"  #{one.pk}: {one.errors}" for one in rejected)] if rejected else []
