"""docs/providers.md, Adding one: the page is followed to the letter, and what comes of it passes the conformance."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from notifications.conf import PROVIDERS
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers.feishu.error_codes import CODE_RULES
from notifications.testing.conformance import TOKEN, ProviderConformance
from notifications.testing.sandbox.server import Sandbox

PAGE = (Path(__file__).resolve().parents[2] / "docs/providers.md").read_text(encoding="utf-8")
PROVIDER, TEST = re.findall(r"```python\n(.*?)```", PAGE.partition("## Adding one")[2], re.DOTALL)

pager = types.ModuleType("ourproject_pager")
exec(PROVIDER, pager.__dict__)  # noqa: S102  the page's own code
sys.modules[pager.__name__] = pager

_test: dict[str, Any] = {
    "ProviderConformance": ProviderConformance,
    "PagerProvider": pager.__dict__["PagerProvider"],
    "__name__": __name__,
}
exec(TEST, _test)  # noqa: S102
TestPager = _test["TestPager"]


@pytest.mark.django_db(transaction=True)
def test_it_can_be_named_in_the_settings_set_up_in_the_admin_and_sent_with(
    admin_client: Client, make_user: Callable[..., User], change: Callable[..., None]
) -> None:
    with Sandbox() as sandbox:
        change(PROVIDERS={**PROVIDERS, "pager": "ourproject_pager.PagerProvider"}, SANDBOX_ORIGINS=[sandbox.origin])
        form = {
            "user": make_user("alice").pk,
            "channel": "pager",
            "enabled": "on",
            "auth_type": "bearer",
            "new_bearer_token": TOKEN,
            "new_webhook_url": f"{sandbox.origin}/webhook/canary0123456789",
        }
        url = "/admin/notifications/usernotificationchannel/add/"
        assert admin_client.post(url, form | {"new_webhook_url": "https://evil.example/"}).status_code == 200
        assert admin_client.post(url, form).status_code == 302

        call_command("send_test_notification", "alice", "--channel", "pager")

        [delivery] = sandbox.deliveries()
        assert delivery.headers["Authorization"] == f"Bearer {TOKEN}"
        assert delivery.headers["Idempotency-Key"]
    assert NotificationRecord.objects.get().status == "sent"
    assert UserNotificationChannel.objects.get().last_test_status == "success"


@pytest.mark.parametrize("code", sorted({row.code for row in CODE_RULES}))
def test_every_code_is_on_the_page(code: int) -> None:
    assert str(code) in PAGE.partition("### Feishu and Lark")[2].partition("## Feishu")[0]


@pytest.mark.parametrize("channel", PROVIDERS)
def test_every_provider_has_a_section(channel: str) -> None:
    section = PAGE.partition(f"(`{channel}`)\n")[2].partition("\n## ")[0]

    assert "**What it promises.**" in section
    assert "**Set up.**" in section
