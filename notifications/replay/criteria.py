"""Criteria of a replay operation: which records it replays. They are stored as JSON with the operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import BigIntegerField, Count, Max, Min
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from notifications.exceptions import NotificationError
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.states import UNDELIVERED, Status
from notifications.user_keys import UserKey, plain_user_key, to_user_key

MAX_TEXT_CHARACTERS = 191
"""Longest text, as in the columns."""
MAX_LIST_VALUES = 1000
"""Largest number of values in one list."""

Problem = tuple[str, str | Promise]


class InvalidCriteria(NotificationError, ValueError):
    """The criteria are not valid. `errors` has (field, reason) for each wrong field."""

    def __init__(self, errors: Iterable[Problem]) -> None:
        self.errors = list(errors)
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in self.errors))


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Conditions on records. A record must meet all of them; an empty field is no condition.

    Raises:
        InvalidCriteria: A field is not valid, or fields contradict each other.
    """

    statuses: tuple[str, ...] = ()
    """Of dead, skipped and sent; empty: every record that can be replayed."""
    codes: tuple[str, ...] = ()
    """Codes of the record's last error."""
    channel: str = ""
    user: UserKey | None = None
    """A user's key as the user model has it. A UUID is stored as its text, and may be given so."""
    ids: tuple[int, ...] = ()
    dedupe_key: str = ""
    trace_id: str = ""
    preview_id: str = ""
    search: str = ""
    """A term as in the search box of the admin's list."""
    created_from: datetime | None = None
    created_until: datetime | None = None
    changed_from: datetime | None = None
    """A dead or skipped record changed last when it became dead or skipped."""
    changed_until: datetime | None = None
    force: bool = False
    """Also replay sent and cancelled records. The recipient then gets a sent message twice."""

    def __post_init__(self) -> None:
        if errors := list(self._problems()) or list(self._contradictions()):
            raise InvalidCriteria(errors)
        object.__setattr__(self, "user", plain_user_key(to_user_key(self.user)))

    @classmethod
    def from_json(cls, value: object) -> Criteria:
        """Return the criteria that `as_json()` wrote.

        Args:
            value: JSON values of a stored operation, of this version or an earlier one.

        Raises:
            InvalidCriteria: The value is anything else.
        """
        if not isinstance(value, Mapping):
            raise InvalidCriteria([("criteria", _("must be an object"))])
        fields = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(map(str, set(value) - fields)):
            raise InvalidCriteria((name, _("is not known")) for name in unknown)
        values = dict(value)
        for name in values:
            if name in _TIMES:
                values[name] = _time(name, values[name])
            elif isinstance(values[name], list):
                values[name] = tuple(values[name])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are not empty, as JSON values."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                values[field.name] = value.isoformat() if isinstance(value, datetime) else value
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def cursor_field(self) -> str:
        """The column that orders the records of an operation. Its index contains every record that can match."""
        return "created_at" if self._takes_sent else "updated_at"

    def select(self, as_of: datetime, *, expired: bool = False) -> NotificationQuerySet[NotificationRecord]:
        """Return the records that match, can be replayed, and have not changed since a time.

        A replayed record has changed, so it never matches again.

        Args:
            as_of: The time of the operation, by PostgreSQL's clock.
            expired: Return those that are left out because they have expired, instead.
        """
        records = NotificationRecord.objects.replayable(force=self.force, expired=expired)
        records = records.filter(updated_at__lte=as_of)
        if not self._takes_sent:
            # With this condition PostgreSQL uses the index notification_undelivered.
            records = records.filter(status__in=UNDELIVERED)
        if self.search:
            records = records.search(self.search)
        lookups = {lookup: getattr(self, name) for name, lookup in _LOOKUPS.items() if getattr(self, name)}
        return records.filter(**lookups)

    @property
    def _takes_sent(self) -> bool:
        return self.force and (not self.statuses or Status.SENT in self.statuses)

    def _problems(self) -> Iterator[Problem]:
        for name, choices in (("statuses", (*UNDELIVERED, Status.SENT)), ("codes", None)):
            values: Any = getattr(self, name)
            if not isinstance(values, tuple) or len(values) > MAX_LIST_VALUES or not all(map(_is_text, values)):
                yield name, _("must be a list of texts")
            elif choices and not set(values) <= set(choices):
                yield name, _("only dead, skipped and sent notifications can be replayed")
        for name in ("channel", "dedupe_key", "trace_id", "preview_id", "search"):
            if getattr(self, name) and not _is_text(getattr(self, name)):
                yield name, _("must be a text of at most 191 characters, without NUL")
        if self.user is not None and not _is_user_key(self.user):
            yield "user", _("must be a user id")
        ids: Any = self.ids
        if not isinstance(ids, tuple) or len(ids) > MAX_LIST_VALUES or not all(map(_is_id, ids)):
            yield "ids", _("must be a list of at most 1000 record ids")
        for name in _TIMES:
            moment = getattr(self, name)
            if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
                yield name, _("must be a time with a time zone")
        force: Any = self.force
        if not isinstance(force, bool):
            yield "force", _("must be true or false")

    def _contradictions(self) -> Iterator[Problem]:
        if not self.force and Status.SENT in self.statuses:
            yield "statuses", _("sent notifications require force: the user receives them twice")
        if self._takes_sent and not any(getattr(self, name) for name in _BOUNDS):
            yield "force", _("with force, select also by time of request, user, id, search, dedupe key or trace id")


_TIMES = ("created_from", "created_until", "changed_from", "changed_until")
_BOUNDS = ("created_from", "user", "ids", "search", "dedupe_key", "trace_id")
"""A forced operation needs one of these, so that it reads an index and not nearly every record."""
_LOOKUPS = {
    "statuses": "status__in",
    "codes": "last_error_code__in",
    "channel": "channel",
    "user": "user_id",
    "ids": "pk__in",
    "dedupe_key": "dedupe_key",
    "trace_id": "trace_id",
    "preview_id": "preview_id",
    "created_from": "created_at__gte",
    "created_until": "created_at__lt",
    "changed_from": "updated_at__gte",
    "changed_until": "updated_at__lt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The records of one status, error code and channel that an operation would replay."""

    status: str
    code: str
    channel: str
    count: int
    oldest: datetime
    """The time of the earliest last change among them."""
    newest: datetime


def breakdown(criteria: Criteria, as_of: datetime) -> list[Group]:
    """Return the groups of records that an operation would replay, largest group first. Changes nothing.

    Args:
        criteria: Conditions on the records.
        as_of: The time of the operation, by PostgreSQL's clock.
    """
    rows = (
        criteria.select(as_of)
        .order_by()
        .values_list("status", "last_error_code", "channel")
        .annotate(Count("id"), Min("updated_at"), Max("updated_at"))
    )
    groups = [
        Group(status=status, code=code, channel=channel, count=count, oldest=oldest, newest=newest)
        for status, code, channel, count, oldest, newest in rows
    ]
    return sorted(groups, key=lambda group: (-group.count, group.status, group.code, group.channel))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS and "\x00" not in value


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= BigIntegerField.MAX_BIGINT


def _is_user_key(value: object) -> bool:
    key = to_user_key(value)
    return key is not None and isinstance(key, int) <= isinstance(value, int)


def _time(name: str, text: object) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        raise InvalidCriteria([(name, _("must be a time with a time zone"))]) from None
