"""Reads the environment: NAME, or NAME_FILE with the path of a file that contains the value."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from notifications.conf import MOVED_COMPOSER, RENAMED, ServiceOptions

env = environ.FileAwareEnv()


def secret(name: str) -> str:
    """Return a variable that has no default.

    Raises:
        ImproperlyConfigured: It is not set; the text names it.
    """
    value: str = env.str(name, default="").strip()  # files end in a newline
    if not value:
        raise ImproperlyConfigured(f"Set {name}, or {name}_FILE to the path of a file that holds it.")
    return value


def words(name: str) -> list[str]:
    """Return the items of a comma-separated variable; an empty list by default."""
    return [word.strip() for word in env.str(name, default="").split(",") if word.strip()]


def database(name: str, **options: Any) -> dict[str, Any]:
    """Return an entry of Django's DATABASES.

    Args:
        name: The variable with the postgres:// address.
        options: Added to the entry's OPTIONS.

    Raises:
        ImproperlyConfigured: The variable is not set, or the address is of another kind.
    """
    config: dict[str, Any] = environ.Env.db_url_config(secret(name))
    if config["ENGINE"] != "django.db.backends.postgresql":
        raise ImproperlyConfigured(f"{name} must be a postgres:// address: the claim works only in PostgreSQL.")
    config["OPTIONS"] = config.get("OPTIONS", {}) | options
    return config


def service_settings(redis_url: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return settings.NOTIFICATIONS. NOTIFICATIONS_<KEY> sets each number and text.

    Args:
        redis_url: Address of Redis for locks and nudges, unless NOTIFICATIONS_REDIS_URL is set.
        defaults: The product's values for keys that the environment does not set.

    Returns:
        Values by key. A key that the environment sets by its old name keeps that name, so that a check reports it.
    """
    values: dict[str, Any] = defaults | {
        "REDIS_URL": env.str("NOTIFICATIONS_REDIS_URL", default=redis_url),
        "ENCRYPTION_KEYS": [key.strip() for key in secret("NOTIFICATIONS_ENCRYPTION_KEYS").split(",") if key.strip()],
        "ALERT_EMAILS": words("NOTIFICATIONS_ALERT_EMAILS"),
        "SANDBOX_ORIGINS": words("NOTIFICATIONS_SANDBOX_ORIGINS"),
    }
    for old_name, name in RENAMED.items():
        if (text := _read(old_name, env.str)) is not None and _read(name, env.str) is None:
            values[old_name] = text
            values.pop(name, None)
    for option in fields(ServiceOptions):
        name = option.name.upper()
        read = {int: env.int, float: env.float, str: env.str}.get(type(option.default))
        if read and name != "REDIS_URL" and (value := _read(name, read)) is not None:
            values[name] = value
    if values.get("TRIGGER_COMPOSER") == MOVED_COMPOSER:  # the default of earlier versions, written out
        values["TRIGGER_COMPOSER"] = defaults["TRIGGER_COMPOSER"]
    return values


def _read(name: str, read: Any) -> Any:
    return read(f"NOTIFICATIONS_{name}", default=None)
