"""Reading the environment: NAME, or NAME_FILE naming a file that holds the value."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from notifications.conf import ServiceOptions

env = environ.FileAwareEnv()


def secret(name: str) -> str:
    """Return a value that has no default. Raises ImproperlyConfigured naming the variable."""
    value: str = env.str(name, default="").strip()  # files end in a newline
    if not value:
        raise ImproperlyConfigured(f"Set {name}, or {name}_FILE to the path of a file that holds it.")
    return value


def words(name: str) -> list[str]:
    """Return a comma-separated list, empty by default."""
    return [word.strip() for word in env.str(name, default="").split(",") if word.strip()]


def database(name: str, **options: Any) -> dict[str, Any]:
    """Return Django's settings for a postgres:// address. Raises ImproperlyConfigured for any other kind."""
    config: dict[str, Any] = environ.Env.db_url_config(secret(name))
    if config["ENGINE"] != "django.db.backends.postgresql":
        raise ImproperlyConfigured(f"{name} must be a postgres:// address: nothing else can hold the claim.")
    config["OPTIONS"] = config.get("OPTIONS", {}) | options
    return config


def service_settings(redis_url: str) -> dict[str, Any]:
    """Return settings.NOTIFICATIONS: every number and word of ServiceOptions may be set as NOTIFICATIONS_NAME.

    redis_url: where locks and nudges live unless NOTIFICATIONS_REDIS_URL says otherwise.
    """
    chosen: dict[str, Any] = {
        "REDIS_URL": env.str("NOTIFICATIONS_REDIS_URL", default=redis_url),
        "ENCRYPTION_KEYS": [key.strip() for key in secret("NOTIFICATIONS_ENCRYPTION_KEYS").split(",") if key.strip()],
        "ALERT_EMAILS": words("NOTIFICATIONS_ALERT_EMAILS"),
        "SANDBOX_ORIGINS": words("NOTIFICATIONS_SANDBOX_ORIGINS"),
    }
    for option in fields(ServiceOptions):
        name, kind = option.name.upper(), type(option.default)
        read = {int: env.int, float: env.float, str: env.str}.get(kind)
        if read and name not in chosen and (value := read(f"NOTIFICATIONS_{name}", default=None)) is not None:
            chosen[name] = value
    return chosen
