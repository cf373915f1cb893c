"""A pytest plugin that gives the project the environment it needs before Django reads its settings."""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

import pytest

DEFAULTS = {
    "SECRET_KEY": "tests-only-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ",
    "NOTIFICATIONS_ENCRYPTION_KEYS": "dGVzdHMtb25seS1rZXktMDEyMzQ1Njc4OS1hYmNkZWY=",
    "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    "NOTIFICATIONS_FRONTEND_BASE_URL": "https://app.example.com",
    "HTTPS": "false",
    "CONN_MAX_AGE": "0",  # the live server's threads must not hold the test database open
}

for name, value in DEFAULTS.items():
    os.environ.setdefault(name, value)

if missing := [name for name in ("DATABASE_URL", "REDIS_URL") if not os.environ.get(name)]:
    raise pytest.UsageError(f"{' and '.join(missing)} not set. Run `make test`, which brings up both servers.")

if number := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    # Runners side by side: pytest-django gives each a database of its own, this gives each a Redis of its own.
    os.environ["REDIS_URL"] = urlunsplit(urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{int(number) + 1}"))
