"""System checks: report a setting that is misspelt or cannot work, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning as CheckWarning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models, router
from django.utils.module_loading import import_string
from limits import parse_many

from notifications.conf import MOVED_COMPOSER, known_names, renamed_keys, service_options
from notifications.content.links import contains_external_link
from notifications.content.text import is_visible
from notifications.models import NotificationRecord
from notifications.providers import get_provider
from notifications.providers.feishu.bot import ADDRESS_RULES as BOT_RULES
from notifications.providers.http.proxy import parse_proxy
from notifications.security.secrets import Secret
from notifications.user_keys import user_key_field


@register()
def check_options(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E001: unknown key. E002: wrong type or value. E003, E004, E009, E014, E020 to E022: values that cannot work."""
    raw = getattr(settings, "NOTIFICATIONS", {})
    if unknown := sorted(set(raw) - known_names()):
        hint = f"Known keys: {', '.join(sorted(known_names()))}."
        return [Error(f"Unknown key in NOTIFICATIONS: {name}.", hint=hint, id="notifications.E001") for name in unknown]
    try:
        options = service_options()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="notifications.E002")]
    return [Error(text, id=f"notifications.{code}") for code, text in options.problems()]


@register()
def check_numbers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W006: a number is set that does not apply: it is zero or less, or below another that bounds it."""
    try:
        options = service_options()
    except ImproperlyConfigured:
        return []
    messages: list[CheckMessage] = []
    for name, value in sorted(getattr(settings, "NOTIFICATIONS", {}).items()):
        given = value.total_seconds() if isinstance(value, timedelta) else value
        used = getattr(options, name.lower(), None)
        if isinstance(used, (int, float)) and given != used:
            reason = "zero or less means unset" if given <= 0 else "RETRY_BASE_DELAY is longer"
            text = f"{name} is {given:g}, but {used:g} applies: {reason}."
            hint = f"Set the number that applies, or remove {name}."
            messages.append(CheckWarning(text, hint=hint, id="notifications.W006"))
    return messages


@register()
def check_keys(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E008: an encryption key is no Fernet key, which makes every stored secret unreadable."""
    try:
        keys = service_options().encryption_keys
    except ImproperlyConfigured:
        return []
    try:
        if keys:
            Secret("").rotated()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="notifications.E008")]
    return []


@register()
def check_renamed(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W002: a setting has its old name, which still works."""
    return [
        CheckWarning(f"NOTIFICATIONS[{old!r}] is now called {new!r}.", id="notifications.W002")
        for old, new in renamed_keys().items()
    ]


@register()
def check_providers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E005: a provider cannot be imported, or does not take its OPTIONS."""
    try:
        providers = service_options().providers
    except ImproperlyConfigured:
        return []  # E001 and E002 report it
    messages: list[CheckMessage] = []
    for channel, config in providers.items():
        try:
            if config.options:
                get_provider(channel)
            else:
                import_string(config.backend)
        except (ImportError, TypeError, ValueError, ImproperlyConfigured) as error:
            messages.append(Error(f"PROVIDERS: channel {channel!r}: {error}", id="notifications.E005"))
    return messages


@register()
def check_fallback_text(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E013: FALLBACK_TEXT cannot be sent."""
    try:
        text = service_options().fallback_text
    except ImproperlyConfigured:
        return []
    if is_visible(text) and not contains_external_link(text):
        return []
    return [Error("FALLBACK_TEXT must be visible and contain no external link.", id="notifications.E013")]


@register()
def check_user_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E006: the user model's key is of a kind that is not supported, such as a date or several columns."""
    if isinstance(user_key_field(), models.IntegerField | models.UUIDField | models.CharField | models.TextField):
        return []
    text = "The user model's primary key must be an integer, a UUID or a text."
    return [Error(text, id="notifications.E006")]


@register()
def check_database(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E010: the database is not PostgreSQL."""
    alias = router.db_for_write(NotificationRecord)
    if (vendor := connections[alias].vendor) == "postgresql":
        return []
    text = f"Notifications need PostgreSQL, because the claim works only there; DATABASES[{alias!r}] is {vendor}."
    return [Error(text, id="notifications.E010")]


@register(Tags.security, deploy=True)
def check_sandbox(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E007: SANDBOX_ORIGINS is set in production, where it allows plain HTTP and private addresses."""
    try:
        origins = service_options().sandbox_origins
    except ImproperlyConfigured:
        return []
    if not origins:
        return []
    text = f"SANDBOX_ORIGINS lets webhooks reach {', '.join(origins)}. Remove it outside demo and tests."
    return [Error(text, id="notifications.E007")]


@register()
def check_alerts(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E009: ALERT_FEISHU_WEBHOOK is no address of a custom bot."""
    try:
        options = service_options()
    except ImproperlyConfigured:
        return []
    problem = BOT_RULES.problem(options.alert_feishu_webhook, options) if options.alert_feishu_webhook else ""
    return [Error(f"ALERT_FEISHU_WEBHOOK {problem}.", id="notifications.E009")] if problem else []


@register()
def check_proxy(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E023: HTTP_PROXY is no address of a proxy."""
    try:
        parse_proxy(service_options().http_proxy)
    except ImproperlyConfigured:
        return []
    except ValueError as problem:
        return [Error(f"{problem}.", id="notifications.E023")]
    return []


@register()
def check_rate_limits(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E012: a rate limit cannot be parsed."""
    try:
        limits = service_options().rate_limits
    except ImproperlyConfigured:
        return []
    return [
        Error(
            f"RATE_LIMITS: {channel}: {text!r} is no rate limit such as 5/second;100/minute.", id="notifications.E012"
        )
        for channel, text in limits.items()
        if text and not _is_limit(text)
    ]


def _is_limit(text: str) -> bool:
    try:
        return bool(parse_many(text))
    except ValueError:
        return False


@register()
def check_composer(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E011: the composer of triggers cannot be imported, or is missing. W003: it is a moved one."""
    try:
        options = service_options()
    except ImproperlyConfigured:
        return []
    path = options.trigger_composer
    if path == MOVED_COMPOSER:
        text = f"TRIGGER_COMPOSER: {path} made the messages of one product and is gone. Every trigger is refused."
        return [
            CheckWarning(text, hint="Name a function of your project; see docs/events.md.", id="notifications.W003")
        ]
    if not path and (options.trigger_types or options.trigger_sources or options.trigger_target_types):
        return [Error("TRIGGER_COMPOSER is not set. Every trigger is refused.", id="notifications.E011")]
    try:
        if path:
            import_string(path)
    except ImportError as error:
        return [Error(f"TRIGGER_COMPOSER: {error}", id="notifications.E011")]
    return []


@register(deploy=True)
def check_composer_is_set(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """I001: the project has no composer, which is right where it has no triggers."""
    try:
        path = service_options().trigger_composer
    except ImproperlyConfigured:
        return []
    text = (
        "TRIGGER_COMPOSER is not set. request_triggered() and the task active_schedule.triggered refuse every trigger."
    )
    return [] if path else [Info(text, id="notifications.I001")]


@register(deploy=True)
def check_audit(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """I002: Django's admin is not installed, so its log is not either."""
    if apps.is_installed("django.contrib.admin"):
        return []
    text = "django.contrib.admin is not installed. Who replays or cancels notifications is written to the log only."
    return [Info(text, id="notifications.I002")]


_TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@register(Tags.database)
def check_timeouts(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W001: PostgreSQL has no timeouts, as behind PgBouncer until the role sets them."""
    alias = router.db_for_write(NotificationRecord)
    if alias not in (databases or ()):
        return []
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_user)")
        [role] = cursor.fetchone()
        cursor.execute(
            "SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = '0' ORDER BY 1", [list(_TIMEOUTS)]
        )
        missing = [name for (name,) in cursor.fetchall()]
    return [
        CheckWarning(
            f"PostgreSQL has no {name} for {role}.",
            hint=f"ALTER ROLE {role} SET {name} = ...; see docs/operations.md, PgBouncer.",
            id="notifications.W001",
        )
        for name in missing
    ]
