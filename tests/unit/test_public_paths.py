"""Names that other projects import: each is still where it was, or its old path says where it is now."""

from __future__ import annotations

import warnings
from importlib import import_module

import pytest
from django.core.management import get_commands
from django.utils.module_loading import import_string

STABLE = {
    "notifications.api": (
        *("Accepted", "DedupeConflict", "InvalidNotification", "NotificationPayload", "Scheduled"),
        *("cancel_notification", "replay_notifications", "request_notification", "request_notifications"),
        *("request_triggered", "resume_channel", "schedule_job", "send_notifications_now"),
    ),
    "notifications.tasks": (
        *("deliver_due", "watch", "purge_notifications", "run_replays", "publish_due_jobs", "handle_triggered"),
        *("handle_feishu_requested", "FEISHU_REQUESTED"),
    ),
    "notifications.models": (
        *("NotificationRecord", "DeliveryAttempt", "UserNotificationChannel", "RejectedRequest", "ReplayOperation"),
        *("Counter", "Heartbeat", "Alert", "DueJob"),
    ),
    "notifications.testing": (
        *("Sandbox", "assert_notified", "assert_not_notified", "deliver_notifications", "using_memory"),
        "using_sandbox",
    ),
    "notifications.testing.plugin": (),
    "notifications.admin": (),
    "notifications.management": (),
    "notifications.conf": (
        *("ServiceOptions", "service_options", "known_names", "DEFAULT_FALLBACK_TEXT", "PROVIDERS", "BOT_FORMATS"),
    ),
    "notifications.web_api": ("api",),
    "notifications.signals": ("unmapped_answer",),
    "notifications.beat": ("beat_schedule",),
    "notifications.providers": ("get_provider", "configured_providers"),
    "notifications.providers.base": (
        *("SendRequest", "SendResult", "Endpoint", "Provider", "ProviderError", "ChannelRules", "stable_id"),
    ),
    "notifications.providers.memory": ("MemoryProvider",),
    "notifications.providers.email": ("EmailProvider",),
}
MOVED = {
    "notifications.log": ("NoSecrets", "JsonFormatter"),
    "notifications.reports": ("Filter", "Reporter"),
    "notifications.probes": ("ProbesMiddleware",),
    "notifications.composer": ("compose",),
    "notifications.triggers": ("Trigger", "parse_trigger", "TRIGGERED", "WINDOW", "IDENTIFIERS"),
    "notifications.models": ("Tally",),
    "notifications.alerts": ("alert_told",),
    "notifications.secret": ("Secret", "SecretField", "SecretUnreadable", "mask_tail", "mask_url"),
    "notifications.providers.feishu": ("FeishuFlowProvider",),
    "notifications.providers.feishu_bot": ("FeishuBotProvider",),
    "notifications.providers.feishu_base": ("FeishuBaseProvider",),
    "notifications.providers.webhook": ("StandardWebhookProvider",),
    "notifications.providers.base": ("attempt", "normalize", "without_secrets"),
    "notifications.providers.addresses": ("AddressRules", "ODD_CHARACTERS", "NO_ADDRESS", "NOT_HTTPS", "EXTRAS"),
    "notifications.providers.answers": (
        *("Code", "Status", "Verdict", "Table", "Meaning", "judge", "code_of", "UNMAPPED_ATTEMPTS"),
        *("SENT", "BUSY", "TROUBLE", "UNMAPPED", "CONTENT", "CONFIG", "AUTH", "UNKNOWN", "STATUSES"),
    ),
    "notifications.providers.posting": ("WebhookProvider", "as_json"),
}
COMMANDS = (
    *("deliver_due", "notifications_doctor", "purge_notifications", "replay_notifications"),
    *("redact_stored_answers", "rotate_notification_keys", "send_test_notification"),
    *("deliver", "run_workers"),
)


@pytest.mark.parametrize("module", STABLE)
def test_public_names_are_where_they_were(module: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        missing = [name for name in STABLE[module] if not hasattr(import_module(module), name)]

    assert missing == []


@pytest.mark.parametrize("module", MOVED)
def test_moved_names_are_found_and_warn_with_the_new_path(module: str) -> None:
    for name in MOVED[module]:
        with pytest.warns(DeprecationWarning, match=rf"^{module}\.{name} moved to notifications\.") as warned:
            old = getattr(import_module(module), name)

        new_path = str(warned[0].message).partition(" moved to ")[2]
        assert old is import_string(new_path), name
        assert warned[0].filename == __file__, "the warning names the caller"


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"notifications\.log.*nothing"):
        _ = import_module("notifications.log").nothing


def test_commands_keep_their_names() -> None:
    assert {name for name, app in get_commands().items() if app == "notifications"} == set(COMMANDS)
