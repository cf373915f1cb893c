"""A project that still has the settings of version 0.1 starts with this one, and the checks tell what to change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core import checks
from django.utils.module_loading import import_string
from pytest_django import Settings

from notifications import tasks
from notifications.api import request_triggered
from notifications.conf import RENAMED, service_options
from notifications.ingest.validation import InvalidNotification
from notifications.models import RejectedRequest
from notifications.providers import configured_providers
from tests.support.paths import ROOT
from tests.support.payloads import trigger

TEXTS: dict[str, str] = {
    "OWNER_MAIL_FROM": "noreply@example.com", "ALERT_LANGUAGE": "zh-hans", "METRICS_TOKEN": "token",
    "ALERT_FEISHU_WEBHOOK": "https://open.feishu.cn/open-apis/bot/v2/hook/0123456789",
    "FRONTEND_BASE_URL": "https://app.example.com", "FEISHU_EVENT": "planner.changed", "FEISHU_TITLE": "Planner",
    "FEISHU_ACTION_TEXT": "Show", "FEISHU_BOT_FORMAT": "post", "REDIS_URL": "redis://redis.example:6379/3",
    "TRIGGER_COMPOSER": "notifications.composer.compose",
}  # fmt: skip
NUMBERS: dict[str, float] = {
    "MAX_ATTEMPTS": 6, "RETRY_BASE_DELAY": 301, "RETRY_MAX_DELAY": 1801, "RETRY_AFTER_MAX": 3601,
    "SUMMARY_MAX_RUNES": 181, "RETRY_SCAN_BATCH": 101, "LEASE": 61, "SEND_SLOTS": 65, "DRAIN_BUDGET": 21,
    "SWEEP_INTERVAL": 61, "DUE_AGE_LIMIT": 301, "ALERT_WINDOW": 3601, "RETENTION_DAYS": 90, "TEST_INTERVAL": 31,
    "HELD_KEY_DELAY": 6, "LOCK_WAIT": 6, "NUDGE_TTL": 16, "REDIS_TIMEOUT": 0.5, "REDIS_SILENCE": 6,
    "PROBE_INTERVAL": 31, "RESUME_RATE": 11, "RETRY_JITTER": 0.2, "CONNECT_TIMEOUT": 4, "READ_TIMEOUT": 6,
    "TOTAL_TIMEOUT": 11,
}  # fmt: skip
NOTIFICATIONS: dict[str, Any] = TEXTS | NUMBERS | {
    "ALERT_EMAILS": ["ops@example.com"],
    "SANDBOX_ORIGINS": ["http://127.0.0.1:9000"],
    "ENCRYPTION_KEYS": ["dGVzdHMtb25seS1rZXktMDEyMzQ1Njc4OS1hYmNkZWY="],
    "RATE_LIMITS": {"feishu": "5/second;100/minute"},
    "PROVIDERS": {
        "feishu": "notifications.providers.feishu.FeishuFlowProvider",
        "feishu_bot": "notifications.providers.feishu_bot.FeishuBotProvider",
        "feishu_base": "notifications.providers.feishu_base.FeishuBaseProvider",
        "webhook": "notifications.providers.webhook.StandardWebhookProvider",
        "email": "notifications.providers.email.EmailProvider",
    },
}  # fmt: skip
"""Every key of version 0.1, each with another value than its default."""
OTHER_SETTINGS = (
    *("notifications.probes.ProbesMiddleware", "notifications.reports.Reporter", "notifications.reports.Filter"),
    *("notifications.log.NoSecrets", "notifications.log.JsonFormatter"),
)
ENVIRONMENT = {
    "SECRET_KEY": "production-like-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ",
    "REDIS_URL": "redis://redis.example:6379/0",
    "CELERY_BROKER_URL": "redis://redis.example:6379/1",
    "ALLOWED_HOSTS": "notifications.example.com", "CSRF_TRUSTED_ORIGINS": "https://notifications.example.com",
    "DEBUG": "false", "HTTPS": "true", "BEHIND_PROXY": "true", "DATABASE_TIMEOUT": "31", "DATABASE_POOLED": "false",
    "CONN_MAX_AGE": "61", "LANGUAGE_CODE": "zh-hans", "TIME_ZONE": "Asia/Shanghai", "LOG_LEVEL": "WARNING",
    "CELERY_REMOTE_CONTROL": "true", "EMAIL_URL": "smtp+tls://user:password@mail.example.com:587",
    "SERVER_EMAIL": "root@example.com", "DEFAULT_FROM_EMAIL": "noreply@example.com", "SENTRY_DSN": "",
    "NOTIFICATIONS_ENCRYPTION_KEYS": "cHJvZHVjdGlvbi1saWtlLTAxMjM0NTY3ODktYWJjZGU=",
    "NOTIFICATIONS_ALERT_EMAILS": "ops@example.com,more@example.com", "NOTIFICATIONS_SANDBOX_ORIGINS": "",
    **{f"NOTIFICATIONS_{name}": str(value) for name, value in (TEXTS | NUMBERS).items()},
}  # fmt: skip
"""Every variable of version 0.1's project, but for DATABASE_URL."""


@pytest.fixture
def _last_version(settings: Settings) -> None:
    settings.NOTIFICATIONS = NOTIFICATIONS


def reported(*, deploy: bool = False) -> list[str]:
    """Return the ids of this app's check messages."""
    messages = checks.run_checks(include_deployment_checks=deploy)
    return sorted(str(message.id) for message in messages if str(message.id).startswith("notifications."))


@pytest.mark.filterwarnings("ignore:notifications.* moved to:DeprecationWarning")
@pytest.mark.usefixtures("_last_version")
class TestSettings:
    def test_checks_report_what_was_renamed_or_moved_and_no_error(self) -> None:
        assert reported() == ["notifications.W002"] * len(RENAMED) + ["notifications.W003"]

    def test_every_value_is_used(self) -> None:
        options = service_options()

        for name, value in NOTIFICATIONS.items():
            used: Any = getattr(options, RENAMED.get(name, name).lower())
            if name == "PROVIDERS":
                used = {channel: config.backend for channel, config in used.items()}
            assert (list(used) if isinstance(used, tuple) else used) == value, name

    def test_every_provider_is_found(self) -> None:
        providers = configured_providers()

        assert {channel: type(provider).__name__ for channel, provider in providers.items()} == {
            channel: path.rpartition(".")[2] for channel, path in NOTIFICATIONS["PROVIDERS"].items()
        }

    @pytest.mark.django_db
    def test_the_old_composer_refuses_by_name_and_the_trigger_is_kept(self) -> None:
        with pytest.raises(InvalidNotification, match="TRIGGER_COMPOSER"):
            request_triggered(trigger())

        tasks.handle_triggered.run(trigger())
        assert RejectedRequest.objects.count() == 1


@pytest.mark.parametrize("path", OTHER_SETTINGS)
def test_dotted_paths_of_other_settings_are_found(path: str) -> None:
    with pytest.warns(DeprecationWarning, match="moved to notifications"):
        import_string(path)


@pytest.mark.processes
def test_the_projects_environment_is_read_as_before() -> None:
    program = (
        "import json, django\ndjango.setup()\nfrom django.conf import settings\nfrom django.core import checks\n"
        "from django.utils.module_loading import import_string\n"
        "from notifications.conf import service_options\noptions = service_options()\n"
        "ids = [message.id for message in checks.run_checks(include_deployment_checks=True)]\n"
        "import_string(options.trigger_composer)\n"
        "print(json.dumps([ids, [getattr(options, name) for name in "
        f"{[RENAMED.get(name, name).lower() for name in (TEXTS | NUMBERS)]!r}]]))"
    )
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE", "COV_"))}
    env = (
        kept
        | ENVIRONMENT
        | {"DATABASE_URL": os.environ["DATABASE_URL"], "DJANGO_SETTINGS_MODULE": "smartmate.settings"}
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    ids, values = json.loads(done.stdout)
    assert ids == ["notifications.W002"] * len(RENAMED)
    expected = TEXTS | NUMBERS | {"TRIGGER_COMPOSER": "smartmate.composer.compose"}
    assert dict(zip(expected, values, strict=True)) == expected
