"""Feishu and Lark Flow webhooks: a request starts a flow of the user, and the flow posts the message.

Users build their flows on the fields of the request, so the fields are stable.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.providers.base import SendRequest
from notifications.providers.feishu.error_codes import FEISHU_RULES
from notifications.providers.http.messages import Exchange
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.webhook_base import WebhookProvider, json_request
from notifications.states import AuthType

ADDRESS_RULES = AddressRules(
    named_hosts="feishu_hosts",
    hosts=re.compile(r"(www\.)?(feishu\.cn|larksuite\.com)"),
    wrong_host=gettext_noop("must be on one of www.feishu.cn, feishu.cn, www.larksuite.com, larksuite.com"),
    path=re.compile(r"/flow/api/trigger-webhook/[A-Za-z0-9_-]{8,128}"),
    wrong_path=gettext_noop("must be /flow/api/trigger-webhook/ and a key"),
)


def check_webhook_url(url: str, options: ServiceOptions) -> str:
    """Return why an address is not accepted as a Flow webhook, or an empty string.

    Args:
        url: The address.
        options: Its `sandbox_origins` are accepted too.
    """
    return ADDRESS_RULES.problem(url, options)


class FeishuFlowProvider(WebhookProvider):
    """Starts a Feishu or Lark flow of the user."""

    channel = "feishu"
    name = "Feishu"
    table = FEISHU_RULES
    named_hosts = "feishu_hosts"
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE, AuthType.BEARER)

    def address_problem(self, url: str) -> str:
        """Return why an address is not a Flow webhook, or an empty string."""
        return check_webhook_url(url, self.options)

    def deliver(self, request: SendRequest, url: str, secret: str) -> Exchange:
        """Ask to post the fields.

        Args:
            request: The message.
            url: The flow's address.
            secret: The bearer token, or blank.
        """
        payload = self.payload(request)
        response = yield json_request(url, payload, {"Authorization": f"Bearer {secret}"} if secret else {})
        return self.read(response, payload)

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the fields of the request, with the time of sending."""
        fields = {"event": self.event_of(request), "version": "1"} | self.fields(request)
        fields["sent_at"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return fields
