"""Recipients of a message: users, endpoints that belong to nobody, and addresses, resolved to endpoints."""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from django.db import models
from django.utils.translation import gettext, gettext_lazy as _

from notifications.conf import ServiceOptions, service_options
from notifications.content.text import trim
from notifications.ingest.validation import InvalidNotification, Reason
from notifications.models import UserNotificationChannel
from notifications.models.channels import ADDRESS_LABEL
from notifications.providers import get_provider
from notifications.providers.base import ChannelRules
from notifications.querysets import primary_users
from notifications.security.secrets import Secret
from notifications.user_keys import to_user_key

EMAIL = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One recipient. Use `Recipient.of_user`, `Recipient.named` or `Recipient.at`."""

    user: Any = None
    """A user, or the primary key of one."""
    label: str = ""
    """The label of an endpoint: of the user, if there is one, else of one that belongs to nobody."""
    address: str = field(default="", repr=False)
    channel: str = ""
    """The channel of the address."""
    endpoint: UserNotificationChannel | None = None
    context: Mapping[str, Any] | None = None
    """Values for the templates, beside those of the call."""

    @classmethod
    def of_user(cls, user: Any, *, label: str = "", context: Mapping[str, Any] | None = None) -> Self:
        """Return a user as a recipient.

        Args:
            user: The user, or its primary key.
            label: Label of one of the user's endpoints; blank for the ones without a label.
            context: Values for the templates, only for this recipient.
        """
        return cls(user=user, label=label, context=context)

    @classmethod
    def named(cls, label: str, *, context: Mapping[str, Any] | None = None) -> Self:
        """Return an endpoint that belongs to no user as a recipient.

        Args:
            label: Its label, such as "on-call".
            context: As for `of_user`.
        """
        return cls(label=label, context=context)

    @classmethod
    def at(cls, address: str, *, channel: str = EMAIL, context: Mapping[str, Any] | None = None) -> Self:
        """Return an address as a recipient. Its first message makes an endpoint for it.

        Args:
            address: A mail address, or the address of a webhook without authentication.
            channel: Its channel.
            context: As for `of_user`.
        """
        return cls(address=address, channel=channel, context=context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one record goes."""

    recipient: int
    """Index in the recipients of the call."""
    channel: str
    user_id: Any = None
    endpoint_id: int | None = None
    """None: the user's endpoint without a label on the channel, as it is when the message is sent."""
    user: Any = None
    """The user, if it was given or read."""
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """Names the endpoint in the record's dedupe key."""
        return f"u:{self.user_id}" if self.endpoint_id is None else f"e:{self.endpoint_id}"


def read_recipients(recipients: Any) -> list[Recipient]:
    """Return the recipients that a caller named.

    Args:
        recipients: One of these, or an iterable of them: a user, a user's primary key (a number or a UUID), a mail
            address, the label of an endpoint that belongs to nobody, a UserNotificationChannel, a Recipient; or a
            pair of one of these and a context of its own.

    Raises:
        InvalidNotification: One is of another kind, or there is none.
    """
    items = [recipients] if _is_one(recipients) else list(recipients)
    if not items:
        raise InvalidNotification([("recipients", _("must not be empty"))])
    errors: list[tuple[str, Reason]] = []
    read = []
    for index, item in enumerate(items):
        context = None
        if isinstance(item, tuple) and not _is_one(item):
            errors.append((f"recipients[{index}]", _("must be a recipient, or a pair of a recipient and a context")))
            continue
        if isinstance(item, tuple):
            item, context = item
        if (recipient := _read(item, context)) is None:
            text = _("must be a user, a user's key, an address, a label or a Recipient, not %(type)s")
            errors.append((f"recipients[{index}]", text % {"type": type(item).__name__}))
        else:
            read.append(recipient)
    if errors:
        raise InvalidNotification(errors)
    return read


def _is_one(value: Any) -> bool:
    if isinstance(value, tuple):  # a pair of a recipient and its context
        return len(value) == 2 and isinstance(value[1], Mapping) and _is_one(value[0])
    return isinstance(value, (str, Recipient, models.Model)) or not isinstance(value, Iterable)


def _read(value: Any, context: Mapping[str, Any] | None) -> Recipient | None:
    match value:
        case Recipient():
            return value if context is None else replace(value, context=context)
        case UserNotificationChannel():
            return Recipient(endpoint=value, context=context)
        case models.Model() if isinstance(value, get_user_model()):
            return Recipient(user=value, context=context)
        case str() if "@" in value:
            return Recipient(address=value, channel=EMAIL, context=context)
        case str():
            return Recipient(label=value, context=context)
        case bool():
            return None
        case int() | uuid.UUID():
            return Recipient(user=value, context=context)
    return None


def find_targets(
    recipients: Sequence[Recipient], channels: Sequence[str] | None, options: ServiceOptions
) -> list[Target]:
    """Return where the messages go: one target for each recipient and channel, in the order of the recipients.

    A user that is passed as an object, on a named channel, costs no query.

    Args:
        recipients: The recipients.
        channels: Names of the channels. None: each endpoint of a recipient that is switched on, else DEFAULT_CHANNEL.
        options: For `default_channel` and `providers`.

    Raises:
        InvalidNotification: A recipient is not known, or has no endpoint on the channels.
    """
    errors: list[tuple[str, Reason]] = [
        ("channels", _no_provider(channel)) for channel in channels or () if channel not in options.providers
    ]
    users = _find_users(recipients, errors)
    of_users = _find_user_endpoints(recipients, users, channels)
    named = _find_named_endpoints(recipients)
    addresses = _find_addresses(recipients, channels, errors)
    targets: list[Target] = []
    for index, recipient in enumerate(recipients):
        context = recipient.context or {}
        common: dict[str, Any] = {"recipient": index, "context": context}
        if recipient.endpoint is not None:
            targets.append(_target(recipient.endpoint, **common))
        elif recipient.address:
            if found := addresses.get((recipient.channel, recipient.address)):
                targets.append(_target(found, **common))
        elif recipient.user is None:
            rows = [row for row in named[recipient.label] if channels is None or row.channel in channels]
            targets += [_target(row, **common) for row in rows]
            if not rows:
                errors.append((f"recipients[{index}]", _no_endpoint(recipient.label, channels)))
        elif index in users:
            user = users[index]
            common |= {"user": user}
            if channels is not None and not recipient.label:
                targets += [Target(channel=channel, user_id=user.pk, **common) for channel in channels]
                continue
            rows = [row for row in of_users[user.pk] if not recipient.label or row.label == recipient.label]
            targets += [_target(row, **common) for row in rows]
            if not rows and recipient.label:
                errors.append((f"recipients[{index}]", _no_endpoint(recipient.label, channels)))
            elif not rows:
                targets.append(
                    Target(channel=options.default_channel or next(iter(options.providers)), user_id=user.pk, **common)
                )
    if errors:
        raise InvalidNotification(errors)
    return targets


def _target(row: UserNotificationChannel, **common: Any) -> Target:
    # The endpoint without a label is looked up when the message is sent: it may be deleted and entered again.
    of_user = row.user_id is not None and not row.label
    return Target(channel=row.channel, user_id=row.user_id, endpoint_id=None if of_user else row.pk, **common)


def _no_endpoint(label: str, channels: Sequence[str] | None) -> Reason:
    if channels is None:
        return _("has no endpoint with the label %(label)s that is switched on") % {"label": label}
    values = {"label": label, "channels": ", ".join(channels)}
    return _("has no endpoint with the label %(label)s that is switched on, on: %(channels)s") % values


def _no_provider(channel: str) -> Reason:
    known = ", ".join(service_options().providers)
    return _("%(channel)s has no provider; known: %(known)s") % {"channel": channel, "known": known}


def _find_users(recipients: Sequence[Recipient], errors: list[tuple[str, Reason]]) -> dict[int, Any]:
    """Return the users by index of their recipient."""
    model = get_user_model()
    given = {index: recipient.user for index, recipient in enumerate(recipients) if recipient.user is not None}
    users: dict[int, Any] = {index: user for index, user in given.items() if isinstance(user, model)}
    keys: dict[int, Any] = {}
    for index, key in given.items():
        if index in users:
            continue
        if (read := to_user_key(key)) is None:
            errors.append((f"recipients[{index}]", _("is no key of a user")))
        else:
            keys[index] = read
    if keys:
        found = primary_users().in_bulk(list(set(keys.values())))
        for index, key in keys.items():
            if key in found:
                users[index] = found[key]
            else:
                errors.append((f"recipients[{index}]", _("there is no user with this key")))
    return users


def _find_user_endpoints(
    recipients: Sequence[Recipient], users: Mapping[int, Any], channels: Sequence[str] | None
) -> Mapping[Any, list[UserNotificationChannel]]:
    """Return the endpoints that are switched on, by user, of those whose endpoints must be looked up."""
    wanted = {user.pk for index, user in users.items() if channels is None or recipients[index].label}
    found: dict[Any, list[UserNotificationChannel]] = defaultdict(list)
    if wanted:
        rows = UserNotificationChannel.objects.filter(user_id__in=wanted, enabled=True).order_by("channel", "label")
        for row in rows if channels is None else rows.filter(channel__in=channels):
            found[row.user_id].append(row)
    return found


def _find_named_endpoints(recipients: Sequence[Recipient]) -> Mapping[str, list[UserNotificationChannel]]:
    labels = {recipient.label for recipient in recipients if recipient.user is None and recipient.label}
    found: dict[str, list[UserNotificationChannel]] = defaultdict(list)
    if labels:
        rows = UserNotificationChannel.objects.filter(user__isnull=True, label__in=labels, enabled=True)
        for row in rows.order_by("channel"):
            found[row.label].append(row)
    return found


def _find_addresses(
    recipients: Sequence[Recipient], channels: Sequence[str] | None, errors: list[tuple[str, Reason]]
) -> dict[tuple[str, str], UserNotificationChannel]:
    """Return the endpoints of addresses. An address that has none gets one."""
    labels: dict[tuple[str, str], str] = {}
    plain: dict[tuple[str, str], str] = {}
    for index, recipient in enumerate(recipients):
        if not recipient.address:
            continue
        address, name = trim(recipient.address), (recipient.channel, recipient.address)
        problem = _address_problem(address, recipient.channel)
        if channels is not None and recipient.channel not in channels:
            problem = _("is an address of the channel %(channel)s, which is not among the channels")
            problem = problem % {"channel": recipient.channel}
        if problem:
            errors.append((f"recipients[{index}]", problem))
            continue
        labels[name] = ADDRESS_LABEL + hashlib.sha256(address.encode()).hexdigest()[:40]
        plain[name] = address
    if not labels:
        return {}
    known = _rows_by_label(labels.values())
    missing = {name: label for name, label in labels.items() if (name[0], label) not in known}
    if missing:
        try:
            secrets: dict[str, Any] = {label: Secret.of(plain[name]) for name, label in missing.items()}
        except ImproperlyConfigured:
            raise InvalidNotification(
                [("recipients", _("cannot be stored: no encryption key is configured"))]
            ) from None
        rows = [
            UserNotificationChannel(channel=name[0], label=label, webhook_url=secrets[label])
            for name, label in sorted(missing.items(), key=lambda item: item[1])
        ]
        UserNotificationChannel.objects.bulk_create(rows, ignore_conflicts=True)
        known = _rows_by_label(labels.values())
    return {name: known[name[0], label] for name, label in labels.items()}


def _rows_by_label(labels: Iterable[str]) -> dict[tuple[str, str], UserNotificationChannel]:
    rows = UserNotificationChannel.objects.filter(user__isnull=True, label__in=set(labels))
    return {(row.channel, row.label): row for row in rows}


def _address_problem(address: str, channel: str) -> Reason:
    if channel not in service_options().providers:
        return _no_provider(channel)
    provider: object = get_provider(channel)
    if isinstance(provider, ChannelRules):
        return gettext(text) if (text := provider.address_problem(address)) else ""
    if channel == EMAIL:
        try:
            validate_email(address)
        except ValidationError:
            return _("is not an email address")
    return ""
