"""Feishu and Lark Base automations: a request triggers an automation in a Base of the user.

This is the only idempotent API of the vendor: within three hours, it acts once per `Client-Token`.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.providers.base import SendRequest, stable_id
from notifications.providers.feishu.error_codes import FEISHU_RULES
from notifications.providers.http.messages import Exchange
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.webhook_base import WebhookProvider, json_request
from notifications.states import AuthType

ADDRESS_RULES = AddressRules(
    named_hosts="feishu_hosts",
    hosts=re.compile(r"([a-z0-9-]+\.)+(feishu\.cn|larkoffice\.com|larksuite\.com)"),
    wrong_host=gettext_noop("must be on a host of feishu.cn, larkoffice.com or larksuite.com"),
    path=re.compile(r"/base/automation/webhook/event/[A-Za-z0-9_-]{8,128}"),
    wrong_path=gettext_noop("must be /base/automation/webhook/event/ and a key"),
)


class FeishuBaseProvider(WebhookProvider):
    """Starts an automation in a Base of the user."""

    channel = "feishu_base"
    name = "Feishu Base"
    table = FEISHU_RULES
    named_hosts = "feishu_hosts"
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE, AuthType.BEARER)
    limits: ClassVar[str] = "5/second"  # the vendor's limit per automation with a bearer token; 1/second without one

    def address_problem(self, url: str) -> str:
        """Return why an address is not the webhook trigger of an automation, or an empty string."""
        return ADDRESS_RULES.problem(url, self.options)

    def deliver(self, request: SendRequest, url: str, secret: str) -> Exchange:
        """Ask to post the fields with a `Client-Token` that is the same for each retry.

        Args:
            request: The message.
            url: The automation's address.
            secret: The bearer token, or blank.
        """
        headers = {"Client-Token": str(stable_id(request, self.options))}
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        payload = self.payload(request)
        response = yield json_request(url, payload, headers)
        return self.read(response, payload)

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the fields of a Flow request without the time of sending, so that a retry is identical."""
        return {"event": self.event_of(request), "version": "1"} | self.fields(request)
