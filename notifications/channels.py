"""What may be stored as a user's channel, and what storing it does; the admin and the HTTP API ask here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _, gettext_noop

from notifications.conf import service_options
from notifications.models import UserNotificationChannel
from notifications.providers.feishu import check_webhook_url
from notifications.secret import Secret
from notifications.states import AuthType, TestStatus

LONGEST = 2048
"""Characters of an address or a token."""

PROBLEMS = (
    gettext_noop("has characters that do not belong in an address"),
    gettext_noop("is not an address"),
    gettext_noop("must begin with https://"),
    gettext_noop("must be on one of www.feishu.cn, feishu.cn, www.larksuite.com, larksuite.com"),
    gettext_noop("must have no user, query or fragment"),
    gettext_noop("must be /flow/api/trigger-webhook/ and a key"),
)
"""What `check_webhook_url` may say; listed here so that translators find it."""

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
    if plain and field == "webhook_url" and channel == "feishu":
        problem = gettext(found) if (found := check_webhook_url(plain, service_options())) else ""
    elif plain and field == "bearer_token" and not _TOKEN.fullmatch(plain):
        problem = _("must be plain characters without spaces")
    if problem:
        raise Refused([(field, problem)])
    try:
        return Secret.of(plain)
    except ImproperlyConfigured:
        raise Refused([(field, _("cannot be stored: no encryption key is configured"))]) from None


def conflicts(wanted: Settings, stored: UserNotificationChannel) -> Iterator[tuple[str, str | Promise]]:
    """Yield (field, reason) for settings that cannot work together, or not with what is stored."""
    enabled = stored.enabled if wanted.enabled is None else wanted.enabled
    auth_type = wanted.auth_type or stored.auth_type
    webhook_url = stored.webhook_url if wanted.webhook_url is None else wanted.webhook_url
    bearer_token = stored.bearer_token if wanted.bearer_token is None else wanted.bearer_token
    if enabled and not webhook_url:
        yield "webhook_url", _("A channel that is switched on needs an address.")
    if auth_type == AuthType.BEARER and not bearer_token:
        yield "bearer_token", _("This authentication needs a token.")


def apply(wanted: Settings, channel: UserNotificationChannel) -> set[str]:
    """Put the settings into the row, and return the columns to save: a secret that nobody entered is not among them,
    for the one we read may have been rotated meanwhile.

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
        given |= {"paused_at": None, "pause_reason": "", "failures": 0, "probe_at": None, "resumed_at": timezone.now()}
    for name, value in given.items():
        setattr(channel, name, value)
    return {*given, "updated_at"}
