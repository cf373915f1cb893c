"""docs/providers.md, "Adding one": the steps of the page are followed literally in this project.

tests/package/test_provider_guide.py follows them in a project that has only the wheel.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from notifications.conf import PROVIDERS
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers.feishu.error_codes import CODE_RULES
from notifications.testing.conformance import TOKEN
from notifications.testing.sandbox.server import Sandbox
from tests.support.provider_guide import PAGE, read_guide

GUIDE = read_guide()
LAST_VERSION = '''
import re

from notifications.providers.addresses import AddressRules
from notifications.providers.answers import CONFIG, STATUSES, Code, Table
from notifications.providers.base import attempt, normalize, stable_id
from notifications.providers.posting import WebhookProvider, as_json
from notifications.states import AuthType


class OldPagerProvider(WebhookProvider):
    """The example of the last version's page, shortened."""

    channel = "pager"
    name = "pager"
    auth_types = (AuthType.NONE, AuthType.BEARER)
    table = Table([Code(7, "", CONFIG, "the pager is unknown: enter another", "pager.example/docs/errors")], STATUSES)
    rules = AddressRules(
        hosts=re.compile("api"), wrong_host="host", path=re.compile(r"/webhook/[a-z0-9]{8,64}"), wrong_path="path"
    )

    def __init__(self, options=None):
        super().__init__(options)

    def address_problem(self, url):
        return self.rules.problem(url, self.options)

    def deliver(self, request, url, secret):
        return self.post(url, self.fields(request), {"Authorization": f"Bearer {secret}"})
'''


@pytest.fixture
def import_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], types.ModuleType]:
    """Return a function that makes source text importable under a name."""

    def add(name: str, source: str) -> types.ModuleType:
        for parent in name.split(".")[:-1]:
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        module = types.ModuleType(name)
        exec(source, module.__dict__)  # noqa: S102  the page's own code
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return add


@pytest.mark.django_db(transaction=True)
def test_a_provider_of_the_guide_can_be_configured_saved_in_the_admin_and_used(
    admin_client: Client,
    make_user: Callable[..., User],
    change: Callable[..., None],
    import_module: Callable[[str, str], types.ModuleType],
) -> None:
    import_module("ourproject.pager", GUIDE.provider)
    settings: dict[str, Any] = {}
    exec(GUIDE.settings, settings)  # noqa: S102
    with Sandbox() as sandbox:
        change(**settings["NOTIFICATIONS"], SANDBOX_ORIGINS=[sandbox.origin])
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
        assert (delivery.body["priority"], delivery.body["message"]["title"]) == ("high", "Alarm")
    assert NotificationRecord.objects.get().status == "sent"
    assert UserNotificationChannel.objects.get().last_test_status == "success"


@pytest.mark.django_db(transaction=True)
def test_a_provider_written_for_the_last_version_still_works(
    make_user: Callable[..., User],
    change: Callable[..., None],
    import_module: Callable[[str, str], types.ModuleType],
) -> None:
    with pytest.warns(DeprecationWarning, match=r"^notifications\.providers\.\w+\.\w+ moved to ") as warned:
        import_module("ourproject.old_pager", LAST_VERSION)
    assert {str(warning.message).split()[0].rpartition(".")[2] for warning in warned} == {
        *("AddressRules", "CONFIG", "STATUSES", "Code", "Table", "attempt", "normalize", "WebhookProvider", "as_json"),
    }
    with Sandbox() as sandbox:
        change(PROVIDERS={"pager": "ourproject.old_pager.OldPagerProvider"}, SANDBOX_ORIGINS=[sandbox.origin])
        UserNotificationChannel.objects.create(
            user=make_user("alice"),
            channel="pager",
            webhook_url=f"{sandbox.origin}/webhook/canary0123456789",
            auth_type="bearer",
            bearer_token=TOKEN,
        )

        call_command("send_test_notification", "alice", "--channel", "pager")

        assert sandbox.deliveries()[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_name_that_neither_moved_nor_was_renamed_is_missing() -> None:
    from notifications.providers import base

    assert not hasattr(base, "no_such_name")


def test_every_feishu_code_is_on_the_page() -> None:
    table = PAGE.partition("### Feishu and Lark")[2].partition("## Feishu")[0]

    assert {rule.code for rule in CODE_RULES if str(rule.code) not in table} == set()


@pytest.mark.parametrize("channel", PROVIDERS)
def test_every_provider_has_a_section_with_promise_and_setup(channel: str) -> None:
    section = PAGE.partition(f"(`{channel}`)\n")[2].partition("\n## ")[0]

    assert "**What it promises.**" in section
    assert "**Set up.**" in section


def test_the_example_of_the_options_names_real_classes() -> None:
    examples = GUIDE.options_example

    for path in ("notifications.providers.feishu.flow.FeishuFlowProvider", PROVIDERS["feishu_bot"]):
        assert f'"{path}"' in examples
