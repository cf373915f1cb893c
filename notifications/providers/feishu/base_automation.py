"""Feishu and Lark Base automations: a webhook trigger of the user's own Base gets our fields and acts on them.

The one entrance of the vendor's that knows a repeated request: it acts once on a `Client-Token` within three hours.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.providers.base import SendRequest, SendResult, stable_id
from notifications.providers.feishu.error_codes import FEISHU_RULES
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.webhook_base import WebhookProvider
from notifications.states import AuthType

ADDRESS_RULES = AddressRules(
    hosts=re.compile(r"([a-z0-9-]+\.)+(feishu\.cn|larkoffice\.com|larksuite\.com)"),
    wrong_host=gettext_noop("must be on a host of feishu.cn, larkoffice.com or larksuite.com"),
    path=re.compile(r"/base/automation/webhook/event/[A-Za-z0-9_-]{8,128}"),
    wrong_path=gettext_noop("must be /base/automation/webhook/event/ and a key"),
)


class FeishuBaseProvider(WebhookProvider):
    """Starts an automation in the user's Base."""

    channel = "feishu_base"
    name = "Feishu Base"
    table = FEISHU_RULES
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE, AuthType.BEARER)
    limits: ClassVar[str] = "5/second"  # Feishu's, per flow; one a second without a bearer token

    def address_problem(self, url: str) -> str:
        """Return why this is no address of an automation."""
        return ADDRESS_RULES.problem(url, self.options)

    def deliver(self, request: SendRequest, url: str, secret: str) -> SendResult:
        """Post the fields under a token that is the same for every retry; the secret is the bearer token."""
        headers = {"Client-Token": str(stable_id(request, self.options))}
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        return self.post(url, self.payload(request), headers)

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the fields an automation is built on: the Flow's, without the time, so that a retry is the same."""
        return {"event": self.event, "version": "1"} | self.fields(request)
