"""The rules for the settings of a user's channel. The admin and the HTTP API share them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.clock import database_now
from notifications.conf import service_options
from notifications.content.text import trim
from notifications.exceptions import NotificationError
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers import get_provider
from notifications.providers.base import ChannelRules
from notifications.security.secrets import Secret
from notifications.states import HELD_BY_ENDPOINT, AuthType, TestStatus

MAX_SECRET_CHARACTERS = 2048
"""Longest webhook address or token."""

_WITH_SECRET = (AuthType.BEARER, AuthType.SIGNATURE)
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """New settings of a channel. None means unchanged."""

    enabled: bool | None = None
    auth_type: str | None = None
    webhook_url: Secret | None = None
    """A blank secret deletes the stored one."""
    bearer_token: Secret | None = None


class InvalidChannel(NotificationError, ValueError):
    """The settings of a channel are not valid. `errors` has (field, reason), at most one per field."""

    def __init__(self, errors: list[tuple[str, str | Promise]]) -> None:
        self.errors = errors
        super().__init__(errors)


def encrypt_validated(field: str, plain: str, channel: str) -> Secret:
    """Check an address or a token by the provider's rules and encrypt it. A blank value stays blank.

    Args:
        field: "webhook_url" or "bearer_token".
        plain: The value as the user entered it. White space around it is no part of it.
        channel: The channel, whose provider has the rules.

    Raises:
        InvalidChannel: The value is not valid, or no encryption key is configured.
    """
    problem: str | Promise = ""
    plain = trim(plain)
    rules = _rules(channel)
    if plain and field == "webhook_url" and rules:
        problem = gettext(text) if (text := rules.address_problem(plain)) else ""
    elif plain and field == "bearer_token" and not _TOKEN.fullmatch(plain):
        problem = _("must be plain characters without spaces")
    elif plain and field == "bearer_token" and rules:
        problem = gettext(text) if (text := rules.secret_problem(plain)) else ""
    if problem:
        raise InvalidChannel([(field, problem)])
    try:
        return Secret.of(plain)
    except ImproperlyConfigured:
        raise InvalidChannel([(field, _("cannot be stored: no encryption key is configured"))]) from None


def validate_combination(
    new: ChannelSettings, stored: UserNotificationChannel, *, user: Any = None
) -> Iterator[tuple[str, str | Promise]]:
    """Yield (field, reason) for settings that contradict each other or the stored ones.

    Args:
        new: The new settings.
        stored: The channel with its stored settings; it may be unsaved.
        user: The owner, if `stored` has none yet.
    """
    rules = _rules(stored.channel)
    enabled = stored.enabled if new.enabled is None else new.enabled
    auth_type = new.auth_type or stored.auth_type
    webhook_url = stored.webhook_url if new.webhook_url is None else new.webhook_url
    bearer_token = stored.bearer_token if new.bearer_token is None else new.bearer_token
    if rules and auth_type not in rules.auth_types:
        known = ", ".join(str(AuthType(kind).label) for kind in rules.auth_types)
        yield "auth_type", gettext("This channel takes only: %(known)s.") % {"known": known}
        return
    owner = user or (stored.user if stored.user_id else None)
    if enabled and not webhook_url and not (rules and rules.address_optional and _email(owner)):
        yield "webhook_url", _("A channel that is switched on needs an address.")
    # A bearer token cannot serve as a signing secret, and the other way round.
    token_fits_auth_type = new.bearer_token is not None or stored.auth_type in (AuthType.NONE, auth_type)
    if auth_type in _WITH_SECRET and not (bearer_token and token_fits_auth_type):
        yield "bearer_token", _("This authentication needs a token.")


def apply_changes(new: ChannelSettings, channel: UserNotificationChannel) -> set[str]:
    """Set the new settings on the row, without saving it.

    A new address, token or authentication means a new endpoint, so the result of the last test is cleared and a pause
    ends.

    Args:
        new: The new settings.
        channel: The row.

    Returns:
        The names of the fields to save. Unchanged fields are omitted, because a rotation may have re-encrypted a
        secret meanwhile, or a worker may have changed the health of the endpoint.
    """
    changes = {
        name: value
        for name in ("enabled", "auth_type", "webhook_url", "bearer_token")
        if (value := getattr(new, name)) is not None
    }
    if changes.keys() & {"auth_type", "webhook_url", "bearer_token"}:
        changes |= {"last_test_status": TestStatus.NEVER, "last_test_error": "", "last_test_at": None}
        changes |= {"paused_at": None, "pause_reason": "", "failures": 0, "probe_at": None}
        if channel.paused_at or channel.probe_at or _has_held_records(channel):
            changes["release_at"] = database_now()  # the next sweep releases the held records
    for name, value in changes.items():
        setattr(channel, name, value)
    return {*changes, "updated_at"}


def _has_held_records(channel: UserNotificationChannel) -> bool:
    """Return whether records wait for this endpoint, perhaps for a channel that was deleted and is entered again."""
    waiting = NotificationRecord.objects.of_endpoint(channel)
    return waiting.filter(hold_reason__in=HELD_BY_ENDPOINT).exists()


def _rules(channel: str) -> ChannelRules | None:
    """Return the rules of the channel's provider, if it has any."""
    provider: object = get_provider(channel) if channel in service_options().providers else None
    return provider if isinstance(provider, ChannelRules) else None


def _email(user: Any) -> str:
    return str(getattr(user, user.get_email_field_name(), "") or "") if user else ""
