"""Reads the project's settings under many environments, in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.paths import ROOT

PRODUCTION = {
    "SECRET_KEY": "production-like-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ",
    "NOTIFICATIONS_ENCRYPTION_KEYS": "cHJvZHVjdGlvbi1saWtlLTAxMjM0NTY3ODktYWJjZGU=",
    "DATABASE_URL": "postgres://user:pw@db.example:5432/name",
    "REDIS_URL": "redis://redis.example:6379/0",
    "ALLOWED_HOSTS": "notifications.example.com",
}

_PROGRAM = """
import json, os, runpy, sys
from django.core.exceptions import ImproperlyConfigured
kept = dict(os.environ)
for environment in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(kept | environment)
    try:
        settings = runpy.run_path("smartmate/settings.py")
        answer = {name: value for name, value in settings.items() if name.isupper() and name != "LANGUAGES"}
    except ImproperlyConfigured as error:
        answer = str(error)
    except Exception as error:
        answer = ["not refused by name", repr(error)]
    print(json.dumps(answer, default=str))
"""


def read_settings(environments: Sequence[Mapping[str, str]]) -> list[Any]:
    """Return the settings for each environment, PRODUCTION included.

    Returns:
        A mapping of all settings, or the text of ImproperlyConfigured, or a list for any other exception.
    """
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE", "COV_"))}
    wanted = [PRODUCTION | dict(environment) for environment in environments]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT,
        env=kept,
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
