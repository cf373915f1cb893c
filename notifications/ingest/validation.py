"""Checks the fields of a payload and collects what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from notifications.content.text import trim
from notifications.exceptions import NotificationError

EVENT_VERSION = "1"

MAX_PAYLOAD_BYTES = 128 * 1024
"""Larger payloads are refused as a whole. All fields at their longest need far less."""

MAX_UNKNOWN_FIELDS_NAMED = 20
"""Further unknown fields are counted as one error: a payload can have tens of thousands of them."""

MAX_UTC_OFFSET = timedelta(hours=16)
"""PostgreSQL refuses a time zone that is so far from UTC, or farther."""
MAX_INT64 = 2**63 - 1

Reason = str | Promise
"""Why a field is refused; translated when it is shown."""


class InvalidNotification(NotificationError, ValueError):
    """The payload breaks at least one rule. Nothing was stored.

    Args:
        errors: (field, reason) for each broken rule, in the order in which the rules are checked.
    """

    def __init__(self, errors: list[tuple[str, Reason]]) -> None:
        self.errors = errors
        super().__init__(errors)

    def __str__(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.errors)


class DedupeConflict(InvalidNotification):
    """The dedupe key already belongs to a notification of another user. Nothing was stored."""


# The Go service accepted U+001C to U+001F and recorded payloads have them. It refused all other control characters.
_CONTROL = re.compile("[\x00-\x1b\x7f-\x9f]")

_CONTROL_IN_TEXT = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")

_CONTROL_IN_URL = re.compile("[\x00-\x1f\x7f-\x9f]")

_SURROGATE = re.compile("[\ud800-\udfff]")

_LEAP_SECOND = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d):60((?:\.\d+)?(?:Z|[+-]\d\d:\d\d))")

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_too_large(payload: object) -> bool:
    """Return whether the payload's JSON is longer than MAX_PAYLOAD_BYTES, or cannot be written at all.

    Values that are not JSON are counted by their text; the checks of the fields refuse them.
    """
    try:
        text = json.dumps(payload, default=str, skipkeys=True, ensure_ascii=False)
    except (ValueError, RecursionError):  # it contains itself, or is nested too deeply
        return True
    return len(text.encode("utf-8", "surrogatepass")) > MAX_PAYLOAD_BYTES


class Check:
    """Reads the fields of one payload. Each method checks one field, adds its errors and returns its value.

    Call `raise_if_refused()` at the end: until then a method returns a harmless value for a wrong field.

    Args:
        payload: What arrived.
        fields: The names of all fields that it may have.

    Raises:
        InvalidNotification: The payload is no mapping, or is too large to be read.
    """

    FIELD_ORDER = ("payload", "event_version", "user_id", "preview_id", "dedupe_key", "target_url", "requested_at")
    """The order of the errors, which is the Go service's; other fields follow."""

    def __init__(self, payload: object, fields: Collection[str]) -> None:
        if not isinstance(payload, Mapping):
            raise InvalidNotification([("payload", _("must be an object"))])
        if is_too_large(payload):
            raise InvalidNotification([("payload", _("is larger than 128 KiB"))])
        self.payload: Mapping[str, Any] = payload
        self.fields = fields
        self.errors: list[tuple[str, Reason]] = []

    def raise_if_refused(self) -> None:
        """Raise InvalidNotification if any field was refused."""
        if self.errors:
            raise InvalidNotification(self.sorted_errors())

    def refuse(self, name: str, reason: Reason) -> None:
        """Add an error."""
        self.errors.append((name, reason))

    def sorted_errors(self) -> list[tuple[str, Reason]]:
        """Return the errors in FIELD_ORDER."""
        rank = {name: index for index, name in enumerate(self.FIELD_ORDER)}
        return sorted(self.errors, key=lambda error: rank.get(error[0], len(rank)))

    def integer(self, name: str, *, required: bool = False) -> int | None:
        """Check a whole number of 64 bits; return None for a wrong or missing one. A bool is no number."""
        value = self.payload.get(name)
        if value is None:
            if required:
                self.refuse(name, _("is required"))
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, _("must be a whole number"))
            return None
        if not -MAX_INT64 - 1 <= value <= MAX_INT64:
            self.refuse(name, _("is too large"))
            return None
        return value

    def positive_integer(self, name: str, maximum: int = MAX_INT64) -> int:
        """Check a required whole number from 1 to `maximum`; return 0 for a wrong one."""
        value = self.integer(name, required=True)
        if value is not None and not 1 <= value <= maximum:
            self.refuse(name, _("must be positive") if value < 1 else _("is too large"))
        return value or 0

    def user_id(self, maximum: int | None) -> int:
        """Check the user of an event, which is an integer by the event's contract; return 0 for a wrong one.

        Args:
            maximum: The largest key that the user table can hold; None if its keys are no integers.
        """
        if maximum is None:
            self.refuse("user_id", _("this project's users have no integer keys; use notify()"))
            return 0
        return self.positive_integer("user_id", maximum)

    def integer_between(self, name: str, minimum: int, maximum: int) -> int | None:
        """Check a whole number within these bounds; return None for a wrong or missing one."""
        value = self.integer(name)
        if value is not None and not minimum <= value <= maximum:
            limits = {"minimum": minimum, "maximum": maximum}
            self.refuse(name, _("must be from %(minimum)d to %(maximum)d") % limits)
            return None
        return value

    def string(self, name: str, control: re.Pattern[str], limit: int) -> str:
        """Check a string.

        Args:
            name: The field.
            control: Matches the control characters that it must not have.
            limit: Longest value after trimming, in characters.

        Returns:
            The trimmed value; an empty string if it is missing or no string.
        """
        value = self.payload.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(name, _("must be a string"))
            return ""
        value = trim(value)
        if len(value) > limit:
            self.refuse(name, _("is longer than %(limit)d characters") % {"limit": limit})
        if _SURROGATE.search(value):
            self.refuse(name, _("is not valid Unicode"))
        if control.search(value):
            self.refuse(name, _("must not hold control characters"))
        return value

    def identifier(self, name: str, limit: int, *, required: bool) -> str:
        """Check an identifier or address of a request; recorded ones may have U+001C to U+001F, addresses not."""
        control = _CONTROL_IN_URL if name == "target_url" else _CONTROL
        return self.line(name, limit, control=control, required=required)

    def line(self, name: str, limit: int, *, control: re.Pattern[str] = _CONTROL_IN_URL, required: bool = True) -> str:
        """Check a string of one line; see `string`. Where it is required it must not be blank."""
        before = len(self.errors)
        value = self.string(name, control, limit)
        if required and not value and len(self.errors) == before:
            self.refuse(name, _("must not be blank"))
        return value

    def choice(self, name: str, known: Collection[str]) -> str:
        """Check a required string of at most 64 characters that is one of `known`; an empty `known` accepts any."""
        before = len(self.errors)
        value = self.line(name, 64)
        if len(self.errors) == before and known and value not in known:
            self.refuse(name, _("is not supported; known: %(known)s") % {"known": ", ".join(known)})
        return value

    def text(self, name: str, limit: int) -> str:
        """Check a string that may have line breaks and tabs; see `string`."""
        return self.string(name, _CONTROL_IN_TEXT, limit)

    def site_path(self, url: str) -> None:
        """Check that `target_url` is a path of the project's own site, so that no message leads elsewhere."""
        if url and not url.startswith("/"):
            self.refuse("target_url", _("must be a path of this site, starting with one /"))
        elif url.startswith("//") or "://" in url or "\\" in url:
            self.refuse("target_url", _("must not lead to another site"))

    def time(self, name: str) -> datetime | None:
        """Check a required time with a time zone, as a datetime or in ISO 8601; return None for a wrong one."""
        value = self.payload.get(name)
        if value is None:
            self.refuse(name, _("is required"))
            return None
        moment = value
        if isinstance(value, str):
            try:
                moment = parse_time(value)
            except ValueError:
                moment = None
        if not isinstance(moment, datetime):
            self.refuse(name, _("must be an RFC 3339 time, such as 2026-05-01T08:00:00Z"))
        elif (offset := moment.utcoffset()) is None:
            self.refuse(name, _("must have a time zone"))
        elif is_zero_time(moment, offset) and not (isinstance(value, str) and _has_nanoseconds(value)):
            self.refuse(name, _("must not be the zero time"))
        else:
            return moment
        return None

    def refuse_unknown_fields(self) -> None:
        """Add an error for each field that the payload must not have; one error for all beyond the first 20."""
        names = [name for name in self.payload if name not in self.fields]
        for name in names[:MAX_UNKNOWN_FIELDS_NAMED]:
            self.refuse(_UNSTORABLE.sub("\ufffd", str(name))[:64] or '""', _("is not a known field"))
        if names[MAX_UNKNOWN_FIELDS_NAMED:]:
            self.refuse("payload", _("has more unknown fields than are named here"))

    def event_version(self) -> None:
        """Check that `event_version` is missing or EVENT_VERSION."""
        version = self.payload.get("event_version", EVENT_VERSION)
        if version != EVENT_VERSION:
            self.refuse("event_version", _("is not supported; known: %(known)s") % {"known": EVENT_VERSION})


def parse_time(text: str) -> datetime:
    """Return a time in ISO 8601 or RFC 3339, which allows small letters and leap seconds.

    Args:
        text: The time. The second 60 becomes the next second, because datetime has no leap seconds.

    Raises:
        ValueError: It is no time, or has a second 60 that is not the last one of a month in UTC.
    """
    text = re.sub(r"[tz]", lambda match: match[0].upper(), text)
    if not (leap := _LEAP_SECOND.fullmatch(text)):
        return datetime.fromisoformat(text)
    moment = datetime.fromisoformat(f"{leap[1]}:59{leap[2]}") + timedelta(seconds=1)
    if (in_utc := moment.astimezone(UTC)).day != 1 or in_utc.hour or in_utc.minute:
        raise ValueError("not a leap second")
    return moment


def time_problem(moment: datetime) -> Reason:
    """Return why a time cannot be stored; empty if it can.

    PostgreSQL takes offsets below 16 hours, and Python reads back years from 1 to 9999 in UTC only.

    Args:
        moment: A time from a caller.
    """
    offset = moment.utcoffset()
    if offset is None:
        return _("must have a time zone")
    if abs(offset) >= MAX_UTC_OFFSET:
        return _("must have a time zone less than 16 hours from UTC")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return _("must be between the years 1 and 9999 in UTC")
    return ""


def is_zero_time(moment: datetime, offset: timedelta) -> bool:
    """Return whether this is Go's zero time, 0001-01-01T00:00:00Z, in any time zone."""
    return moment.replace(tzinfo=None) - datetime(1, 1, 1) == offset  # noqa: DTZ001  both are without their zone


def _has_nanoseconds(value: str) -> bool:
    """Return whether digits below a microsecond make the time more than zero. Python's datetime drops them."""
    return re.search(r"[.,]\d{6}\d*[1-9]", value) is not None
