"""Assertions on requested notifications. They query the table, and a failure lists what was requested instead."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

    from notifications.models import NotificationRecord, UserNotificationChannel
    from notifications.user_keys import UserKey

    Owner = AbstractBaseUser | UserKey | UserNotificationChannel

MAX_RECORDS_SHOWN = 10
"""Records that a failure message lists."""
FIELDS_SHOWN = ("dedupe_key", "summary_text", "target_url", "status")
"""Fields that are listed for each record, besides the fields of the assertion."""


def assert_notified(user: Owner, **fields: Any) -> NotificationRecord:
    """Assert that a notification was requested for a user or an endpoint.

    Args:
        user: A user or a user's key; a UUID may be its text. Or an endpoint (UserNotificationChannel).
        **fields: Fields of the record and the values they must have, such as dedupe_key="42:moved:7" or status="sent".

    Returns:
        The newest record that matches.

    Raises:
        AssertionError: No record matches. The text lists what was requested instead.
        TypeError: Records have no such field.
    """
    __tracebackhide__ = True  # pytest shows the caller's line instead
    records = _records(fields)
    for record in records:
        if _is_for(record, user) and not _differences(record, fields):
            return record
    title = f"no notification was requested for {_describe(user, fields)}"
    raise AssertionError("\n".join([title, *_describe_requested(records, user, fields)]))


def assert_not_notified(user: Owner, **fields: Any) -> None:
    """Assert that no notification with these fields was requested for a user or an endpoint.

    Args:
        user: As for `assert_notified`.
        **fields: As for `assert_notified`. Without fields, no notification at all.

    Raises:
        AssertionError: A record matches. The text lists the matching records.
        TypeError: Records have no such field.
    """
    __tracebackhide__ = True
    matching = [record for record in _records(fields) if _is_for(record, user) and not _differences(record, fields)]
    if matching:
        title = f"{len(matching)} requested for {_describe(user, fields)}:"
        lines = [_line(record, FIELDS_SHOWN) for record in matching[:MAX_RECORDS_SHOWN]]
        raise AssertionError("\n".join([title, *lines, *_describe_rest(matching)]))


def _records(fields: dict[str, Any]) -> list[NotificationRecord]:
    """Return all records, newest first. Raise TypeError for a field that records do not have."""
    from notifications.models import NotificationRecord  # Django may not be set up when this module is imported

    known = {field.attname for field in NotificationRecord._meta.concrete_fields}
    if unknown := sorted(set(fields) - known):
        raise TypeError(f"notifications have no {', '.join(unknown)}; they have {', '.join(sorted(known))}")
    return list(NotificationRecord.objects.order_by("-id"))


def _is_for(record: NotificationRecord, owner: Owner) -> bool:
    from notifications.models import UserNotificationChannel

    if isinstance(owner, UserNotificationChannel):
        return UserNotificationChannel.objects.of_record(record).filter(pk=owner.pk).exists()
    return bool(record.user_id == _user_id(owner))


def _user_id(user: AbstractBaseUser | UserKey) -> UserKey:
    """Return the user's key as the user model has it, also if it was given as a text."""
    from notifications.user_keys import to_user_key

    given: UserKey = user if isinstance(user, int | str | uuid.UUID) else user.pk
    key = to_user_key(given)
    return given if key is None else key


def _differences(record: NotificationRecord, fields: dict[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if getattr(record, name) != value]


def _describe(user: Owner, fields: dict[str, Any]) -> str:
    from notifications.models import UserNotificationChannel

    if isinstance(user, UserNotificationChannel):
        name = f"endpoint {user}"
    else:
        name = f"user {user}" if isinstance(user, int | str | uuid.UUID) else f"user {user.pk} ({user.get_username()})"
    conditions = ", ".join(f"{field}={value!r}" for field, value in fields.items())
    return f"{name} with {conditions}" if conditions else name


def _describe_requested(records: list[NotificationRecord], user: Owner, fields: dict[str, Any]) -> list[str]:
    """Return lines with what was requested: this user's records first, the most similar before the others."""
    lines: list[str] = []
    for title, same_user in (("for this user:", True), ("for other users:", False)):
        group = [record for record in records if _is_for(record, user) == same_user]
        group.sort(key=lambda record: len(_differences(record, fields)))
        if group:
            lines.append(title)
            for record in group[:MAX_RECORDS_SHOWN]:
                lines.append(_line(record, dict.fromkeys([*_differences(record, fields), *FIELDS_SHOWN])))
            lines += _describe_rest(group)
    return [*(lines or ["no notification was requested"]), *_describe_rejected()]


def _line(record: NotificationRecord, names: Iterable[str]) -> str:
    values = ", ".join(f"{name}={getattr(record, name)!s:.80}" for name in names)
    return f"  #{record.pk} user {record.user_id}: {values}"


def _describe_rest(records: list[NotificationRecord]) -> list[str]:
    return [f"  and {len(records) - MAX_RECORDS_SHOWN} more"] if len(records) > MAX_RECORDS_SHOWN else []


def _describe_rejected() -> list[str]:
    """Return lines with rejected requests, the most probable reason why a request over Celery is missing."""
    from notifications.models import RejectedRequest

    rejected = list(RejectedRequest.objects.order_by("-id")[:MAX_RECORDS_SHOWN])
    return ["rejected requests:", *(f"  #{request.pk}: {request.errors}" for request in rejected)] if rejected else []
