"""System checks of what the project around this app must provide: database, time zone, broker, beat."""

from __future__ import annotations

import ssl
from typing import Any

from celery import current_app
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning as CheckWarning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router

from notifications.beat import DELIVER_DUE
from notifications.broker.redis_client import RedisAddressError, open_client
from notifications.conf import service_options
from notifications.conf.redis_address import normalize_redis_address, verifies_certificate
from notifications.models import NotificationRecord


@register()
def check_redis_url(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E015: no client can use REDIS_URL. Requests still commit, but without locks and nudges."""
    try:
        url = service_options().redis_url
        if url:
            open_client(url, timeout=1)
    except ImproperlyConfigured:
        return []  # E001 and E002 report it
    except RedisAddressError as error:
        return [Error(f'NOTIFICATIONS["REDIS_URL"] {error}.', id="notifications.E015")]
    return []


@register()
def check_broker_url(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E016: Celery cannot use its broker_url."""
    try:
        current_app.connection_for_write().transport  # noqa: B018  the property finds the transport of the address
    except (ImportError, KeyError, ValueError) as error:
        text = f"Celery cannot use its setting broker_url ({type(error).__name__})."
        hint = "It must be an address such as redis://host:6379/0 or amqp://user:password@host."
        return [Error(text, hint=hint, id="notifications.E016")]
    return []


@register(Tags.security, deploy=True)
def check_tls(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W004: a TLS connection to Redis or to the broker does not verify the server's certificate."""
    messages: list[CheckMessage] = []
    for name, verified in (
        ('NOTIFICATIONS["REDIS_URL"]', _redis_verifies()),
        ("Celery's broker_url", _broker_verifies()),
    ):
        if not verified:
            text = (
                f"{name}: the server's certificate is not verified. Whoever answers receives and reads every message."
            )
            hint = (
                "Add ?ssl_cert_reqs=required to a rediss:// address; see docs/settings.md. For amqps:// set "
                'broker_use_ssl = {"server_hostname": None}, which stands for the host of the address.'
            )
            messages.append(CheckWarning(text, hint=hint, id="notifications.W004"))
    return messages


def _redis_verifies() -> bool:
    try:
        url = service_options().redis_url
        return not url or verifies_certificate(normalize_redis_address(url))
    except (ImproperlyConfigured, ValueError):
        return True  # E002 and E015 report it


def _broker_verifies() -> bool:
    try:
        connection = current_app.connection_for_write()
    except ValueError:
        return True  # E016 reports it
    scheme = str(current_app.conf.broker_write_url or current_app.conf.broker_url or "").partition("://")[0].lower()
    options = connection.ssl
    if scheme == "amqps":  # verifies the certificate by default, but not for which host it is
        return isinstance(options, dict) and "server_hostname" in options and options.get("cert_reqs") != ssl.CERT_NONE
    if scheme != "rediss":
        return True
    if not isinstance(options, dict):
        return False  # Celery's default for rediss://
    return options.get("ssl_cert_reqs") in (ssl.CERT_REQUIRED, "required") and options.get("ssl_check_hostname", True)


@register()
def check_time_zones(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E017: USE_TZ is off, but every time of a notification has a time zone."""
    if settings.USE_TZ:
        return []
    text = "USE_TZ is False. Notifications need USE_TZ = True, because each of their times has a time zone."
    return [Error(text, id="notifications.E017")]


@register()
def check_autocommit(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E018: the database does not commit by itself, so that no claim would be visible to other processes."""
    alias = router.db_for_write(NotificationRecord)
    if connections[alias].settings_dict["AUTOCOMMIT"]:
        return []
    text = f"DATABASES[{alias!r}] has AUTOCOMMIT = False. Nothing is sent, because no claim would be committed."
    return [Error(text, hint="Remove AUTOCOMMIT from DATABASES.", id="notifications.E018")]


@register()
def check_one_database(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E019: a database router writes a table of this app to another database than the default one."""
    messages: list[CheckMessage] = []
    for model in apps.get_app_config("notifications").get_models():
        if (alias := router.db_for_write(model)) != DEFAULT_DB_ALIAS:
            text = f"DATABASE_ROUTERS writes {model._meta.label} to DATABASES[{alias!r}]."
            hint = "Keep the tables of notifications in DATABASES['default']; other databases are not supported."
            messages.append(Error(text, hint=hint, id="notifications.E019"))
    return messages


@register(deploy=True)
def check_beat(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W005: beat does not send the sweep, so that overview, doctor and /readyz report beat and workers as missing."""
    if any(entry.get("task") == DELIVER_DUE for entry in dict(current_app.conf.beat_schedule or {}).values()):
        return []
    text = f"Celery's beat_schedule has no entry for {DELIVER_DUE}."
    hint = (
        "Merge notifications.beat.beat_schedule() into it. A project without Celery must run manage.py deliver_due "
        "itself; overview, doctor and /readyz then still report workers and beat as missing."
    )
    return [CheckWarning(text, hint=hint, id="notifications.W005")]
