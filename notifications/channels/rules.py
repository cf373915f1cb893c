"""What may be stored as a user's channel, and what storing it does; the admin and the HTTP API ask here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.conf import service_options
from notifications.models import UserNotificationChannel
from notifications.providers import get_provider
from notifications.providers.base import ChannelRules
from notifications.security.secrets import Secret
from notifications.states import AuthType, TestStatus

LONGEST = 2048
"""Characters of an address or a token."""

_WITH_SECRET = (AuthType.BEARER, AuthType.SIGNATURE)
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What somebody wants a channel to be. None: as it is."""

    enabled: bool | None = None
    auth_type: str | None = None
    webhook_url: Secret | None = None
    """A blank one deletes what is stored."""
    bearer_token: Secret | None = None


class Refused(ValueError):
    """Settings that may not be stored.

    `errors` lists (field, reason), at most one for a field.
    """

    def __init__(self, errors: list[tuple[str, str | Promise]]) -> None:
        self.errors = errors
        super().__init__(errors)


def seal(field: str, plain: str, channel: str) -> Secret:
    """Return an address or a token, checked by the provider's rules and encrypted; a blank stays blank.

    field: "webhook_url" or "bearer_token". Raises Refused.
    """
    problem: str | Promise = ""
    rules = _rules(channel)
    if plain and field == "webhook_url" and rules:
        problem = gettext(found) if (found := rules.address_problem(plain)) else ""
    elif plain and field == "bearer_token" and not _TOKEN.fullmatch(plain):
        problem = _("must be plain characters without spaces")
    elif plain and field == "bearer_token" and rules:
        problem = gettext(found) if (found := rules.secret_problem(plain)) else ""
    if problem:
        raise Refused([(field, problem)])
    try:
        return Secret.of(plain)
    except ImproperlyConfigured:
        raise Refused([(field, _("cannot be stored: no encryption key is configured"))]) from None


def conflicts(
    wanted: Settings, stored: UserNotificationChannel, *, user: Any = None
) -> Iterator[tuple[str, str | Promise]]:
    """Yield (field, reason) for settings that cannot work together, or not with what is stored.

    user: the owner, where the row does not have one yet.
    """
    rules = _rules(stored.channel)
    enabled = stored.enabled if wanted.enabled is None else wanted.enabled
    auth_type = wanted.auth_type or stored.auth_type
    webhook_url = stored.webhook_url if wanted.webhook_url is None else wanted.webhook_url
    bearer_token = stored.bearer_token if wanted.bearer_token is None else wanted.bearer_token
    if rules and auth_type not in rules.auth_types:
        known = ", ".join(str(AuthType(kind).label) for kind in rules.auth_types)
        yield "auth_type", gettext("This channel takes only: %(known)s.") % {"known": known}
        return
    owner = user or (stored.user if stored.user_id else None)
    if enabled and not webhook_url and not (rules and rules.address_optional and _email(owner)):
        yield "webhook_url", _("A channel that is switched on needs an address.")
    # A token is no signing secret: one that was stored for the other kind does not count.
    fits = wanted.bearer_token is not None or stored.auth_type in (AuthType.NONE, auth_type)
    if auth_type in _WITH_SECRET and not (bearer_token and fits):
        yield "bearer_token", _("This authentication needs a token.")


def apply(wanted: Settings, channel: UserNotificationChannel) -> set[str]:
    """Put the settings into the row, and return the columns to save.

    What nobody changed is not among them: a secret may have been rotated meanwhile, and a worker may have noted what
    state the endpoint is in.

    A new address, token or authentication makes another endpoint: what the last test said of the old one is forgotten,
    and a pause ends.
    """
    given = {
        name: value
        for name in ("enabled", "auth_type", "webhook_url", "bearer_token")
        if (value := getattr(wanted, name)) is not None
    }
    if given.keys() & {"auth_type", "webhook_url", "bearer_token"}:
        given |= {"last_test_status": TestStatus.NEVER, "last_test_error": "", "last_test_at": None}
        given |= {"paused_at": None, "pause_reason": "", "failures": 0, "probe_at": None}
        if channel.paused_at or channel.probe_at:
            given["release_at"] = timezone.now()  # the next sweep lets go what waited
    for name, value in given.items():
        setattr(channel, name, value)
    return {*given, "updated_at"}


def _rules(channel: str) -> ChannelRules | None:
    """Return what the channel's provider says of its settings, if it says anything."""
    provider: object = get_provider(channel) if channel in service_options().providers else None
    return provider if isinstance(provider, ChannelRules) else None


def _email(user: Any) -> str:
    return str(getattr(user, user.get_email_field_name(), "") or "") if user else ""
