"""A Django project of somebody else, as `django-admin startproject` makes it, with the app installed from its wheel."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2

PATIENCE = 120.0
"""Seconds one program may take; it only ever runs out on a failure."""
KEY = "dGVzdHMtb25seS1rZXktMDEyMzQ1Njc4OS1hYmNkZWY="

CELERY = """
from celery import Celery
app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
"""A Celery app, as the `celery.py` of a project."""


def database() -> dict[str, str]:
    """Return the test server's address as Django's settings; the name is for the caller to choose."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
    }


@contextlib.contextmanager
def own_database(name: str) -> Iterator[dict[str, str]]:
    """Have an empty database of this name while the block runs."""
    with contextlib.closing(psycopg2.connect(os.environ["DATABASE_URL"])) as server:
        server.autocommit = True
        with server.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{name}"')
            yield database() | {"NAME": name}
            cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def environment(*packages: Path) -> dict[str, str]:
    """Return an environment in which these folders are the only place that `notifications` can come from."""
    ours = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in ours if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(map(str, packages))
    }


class Host:
    """The project: its folder, and its programs run in it."""

    def __init__(self, folder: Path, *packages: Path) -> None:
        self.folder = folder
        self.env = environment(*packages)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, *packages: Path, settings: str = "", **files: str) -> Iterator[Host]:
        """Make the project with a database of its own.

        packages: where the wheel is installed, and what else the project has. settings: further lines.
        files: further modules of the package, by name.
        """
        with own_database(f"host_{uuid.uuid4().hex[:12]}") as databases:
            host = cls(folder, *packages)
            host.run("-m", "django", "startproject", "mysite", ".")
            for name, text in files.items():
                (folder / "mysite" / f"{name}.py").write_text(text)
            with (folder / "mysite" / "settings.py").open("a") as file:
                file.write(
                    "INSTALLED_APPS += ['notifications']\n"
                    f"DATABASES = {{'default': {databases!r}}}\n"
                    f"NOTIFICATIONS = {{'ENCRYPTION_KEYS': [{KEY!r}]}}\n{settings}\n"
                )
            yield host

    def run(self, *arguments: str, **env: str) -> str:
        """Run Python to its end; return all it printed. Raises AssertionError if it failed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder, env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def manage(self, *arguments: str) -> str:
        """Run a management command."""
        return self.run("manage.py", *arguments)

    def shell(self, code: str) -> Any:
        """Run code inside the project; what it leaves in `result` comes back through JSON."""
        program = f"import django, json\ndjango.setup()\nresult = None\n{code}\nprint('RESULT', json.dumps(result))"
        printed, _, result = self.run("-c", program, DJANGO_SETTINGS_MODULE="mysite.settings").rpartition("RESULT ")
        assert printed == ""  # no warning of anybody's
        return json.loads(result)
