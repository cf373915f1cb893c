"""Settings come from the environment, are safe by default, and name what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.db import connection

from tests.support.paths import ROOT
from tests.support.settings_reader import PRODUCTION


def read(*names: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Import the settings under `env` alone and print the named ones as JSON."""
    values = f"[getattr(settings, n) for n in {names!r}]"
    program = f"import json; from smartmate import settings; print(json.dumps({values}, default=str))"
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE", "COV_"))}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=kept | env, capture_output=True, text=True, check=False
    )


@pytest.mark.processes
def test_defaults_are_safe() -> None:
    done = read("DEBUG", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", env=PRODUCTION)

    assert json.loads(done.stdout) == [False, True, True, True]


@pytest.mark.processes
def test_a_missing_variable_is_named() -> None:
    for name in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "NOTIFICATIONS_ENCRYPTION_KEYS"):
        done = read("DEBUG", env=PRODUCTION | {name: ""})

        assert done.returncode != 0, name
        assert f"Set {name}, or {name}_FILE" in done.stderr


@pytest.mark.processes
def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret-key"
    file.write_text("from-the-file-0123456789\n")
    env = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}

    done = read("SECRET_KEY", env=env | {"SECRET_KEY_FILE": str(file)})

    assert json.loads(done.stdout) == ["from-the-file-0123456789"]


@pytest.mark.processes
def test_another_database_than_postgresql_is_refused() -> None:
    done = read("DEBUG", env=PRODUCTION | {"DATABASE_URL": "sqlite:///db.sqlite3"})

    assert done.returncode != 0
    assert "must be a postgres:// address" in done.stderr


@pytest.mark.processes
def test_numbers_and_texts_of_the_app_can_be_set() -> None:
    done = read("NOTIFICATIONS", "CELERY_BEAT_SCHEDULE", env=PRODUCTION | {
        "NOTIFICATIONS_MAX_ATTEMPTS": "7", "NOTIFICATIONS_LEASE": "90.5", "NOTIFICATIONS_SWEEP_INTERVAL": "15",
        "NOTIFICATIONS_FEISHU_TITLE": "Hello",
    })  # fmt: skip

    options, schedule = json.loads(done.stdout)
    assert (options["MAX_ATTEMPTS"], options["LEASE"], options["FEISHU_TITLE"]) == (7, 90.5, "Hello")
    assert schedule["notifications-sweep"]["schedule"] == 15


@pytest.mark.processes
def test_timeouts_are_a_startup_parameter() -> None:
    [databases] = json.loads(read("DATABASES", env=PRODUCTION).stdout)

    assert "-c statement_timeout=30s -c lock_timeout=10s" in databases["default"]["OPTIONS"]["options"]
    assert "DISABLE_SERVER_SIDE_CURSORS" not in databases["default"]


@pytest.mark.processes
def test_behind_pgbouncer_no_session_parameter_is_set() -> None:
    [databases] = json.loads(read("DATABASES", env=PRODUCTION | {"DATABASE_POOLED": "true"}).stdout)

    assert databases["default"]["OPTIONS"].keys() == {"connect_timeout", "application_name", "connection_factory"}
    assert databases["default"]["DISABLE_SERVER_SIDE_CURSORS"] is True


@pytest.mark.django_db
def test_a_missing_timeout_of_postgresql_is_named() -> None:
    assert run_checks(databases=["default"]) == []
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    for number, name in enumerate(names, 1):
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL {name} = 0")

        messages = run_checks(databases=["default"])

        assert [message.id for message in messages] == ["notifications.W001"] * number, name
        assert any(name in message.msg for message in messages)


def check_deploy(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT, env=os.environ | PRODUCTION | {"HTTPS": "true"} | env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.processes
def test_production_like_settings_pass_the_deployment_checks() -> None:
    done = check_deploy()

    assert done.returncode == 0, done.stderr


@pytest.mark.processes
def test_the_sandbox_setting_is_refused_in_a_deployment() -> None:
    done = check_deploy(NOTIFICATIONS_SANDBOX_ORIGINS="http://127.0.0.1:9000")

    assert done.returncode != 0
    assert "notifications.E007" in done.stderr


@pytest.mark.processes
def test_a_worker_loads_neither_the_api_nor_the_urls() -> None:
    program = (
        "import sys, smartmate.celery, django; django.setup(); smartmate.celery.app.loader.import_default_modules()\n"
        "from celery.fixups.django import DjangoWorkerFixup\n"
        "DjangoWorkerFixup(smartmate.celery.app).validate_models()\n"
        "assert 'notifications.tasks' in sys.modules\n"
        "print({'ninja', 'pydantic', 'smartmate.urls'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | PRODUCTION,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("set()\n", "")
