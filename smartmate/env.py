"""Reading the environment: NAME, or NAME_FILE naming a file that holds the value."""

from __future__ import annotations

from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

env = environ.FileAwareEnv()


def secret(name: str) -> str:
    """Return a value that has no default. Raises ImproperlyConfigured naming the variable."""
    value: str = env.str(name, default="")
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
