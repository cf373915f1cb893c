"""Feishu and Lark Flow webhooks: a user's own flow is started with our fields and posts the message.

Users build their flows on these fields, so they are stable. Meaning of answers: `feishu_codes.py`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.providers.base import SendRequest, SendResult
from notifications.providers.feishu.error_codes import FEISHU_RULES
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.webhook_base import WebhookProvider
from notifications.states import AuthType

ADDRESS_RULES = AddressRules(
    hosts=re.compile(r"(www\.)?(feishu\.cn|larksuite\.com)"),
    wrong_host=gettext_noop("must be on one of www.feishu.cn, feishu.cn, www.larksuite.com, larksuite.com"),
    path=re.compile(r"/flow/api/trigger-webhook/[A-Za-z0-9_-]{8,128}"),
    wrong_path=gettext_noop("must be /flow/api/trigger-webhook/ and a key"),
)


def check_webhook_url(url: str, options: ServiceOptions) -> str:
    """Return why this address may not be used as a Flow webhook, or an empty string."""
    return ADDRESS_RULES.problem(url, options)


class FeishuFlowProvider(WebhookProvider):
    """Starts the user's Feishu (Lark) flow."""

    channel = "feishu"
    name = "Feishu"
    table = FEISHU_RULES
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE, AuthType.BEARER)

    def address_problem(self, url: str) -> str:
        """Return why this is no Flow webhook."""
        return check_webhook_url(url, self.options)

    def deliver(self, request: SendRequest, url: str, secret: str) -> SendResult:
        """Post the fields; the secret is the bearer token."""
        return self.post(url, self.payload(request), {"Authorization": f"Bearer {secret}"} if secret else {})

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the fields a user's flow is built on."""
        fields = {"event": self.event, "version": "1"} | self.fields(request)
        fields["sent_at"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return fields
