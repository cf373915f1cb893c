"""Any receiver that follows the Standard Webhooks specification: signed, dated, and known by an id.

The receiver drops what it has seen by `webhook-id`, so a retry after a lost answer is no second message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.providers.base import SendRequest, SendResult, stable_id
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.response_rules import (
    AUTH_FAILED,
    ENDPOINT_CONFIG,
    MESSAGE_REFUSED,
    RATE_LIMITED,
    SENT,
    SERVER_ERROR,
    RuleTable,
    StatusRule,
)
from notifications.providers.webhook_base import WebhookProvider, encode_json
from notifications.states import AuthType, ErrorCode, Outcome

ADDRESS_RULES = AddressRules(
    hosts=re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?(:[1-9]\d{0,4})?"),
    wrong_host=gettext_noop("must name a host in small letters, not a number"),
    path=re.compile(r"(/.*)?"),
    wrong_path=gettext_noop("is not an address"),
    query_allowed=True,
    extras=gettext_noop("must have no user or fragment"),
)
_MARK = "whsec_"
KEY_BYTES = range(24, 65)
"""Length of a key by the specification."""
WRONG_SECRET = gettext_noop("must be whsec_ and 24 to 64 bytes in Base64; during a rotation two, with a comma between")

# fmt: off
STANDARD_WEBHOOK_RULES = RuleTable((), (
    # A body is never looked at: the specification gives a meaning to the status alone.
    #      first last meaning  what a person does
    StatusRule(200,  299, SENT),
    StatusRule(410,  410, ENDPOINT_CONFIG,  "the receiver has given the address up"),
    StatusRule(401,  401, AUTH_FAILED,    "enter the receiver's signing secret"),
    StatusRule(403,  403, AUTH_FAILED,    "enter the receiver's signing secret"),
    StatusRule(429,  429, RATE_LIMITED),
    StatusRule(500,  599, SERVER_ERROR),
    StatusRule(100,  999, MESSAGE_REFUSED),
))
# fmt: on


class StandardWebhookProvider(WebhookProvider):
    """Posts to an address of the user's own choice."""

    channel = "webhook"
    name = "webhook"
    table = STANDARD_WEBHOOK_RULES
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.SIGNATURE,)

    def address_problem(self, url: str) -> str:
        """Return why this address may not be used. Where its name leads is judged when connecting."""
        return ADDRESS_RULES.problem(url, self.options)

    def secret_problem(self, secret: str) -> str:
        """Return why this is no secret of the specification."""
        keys = _keys(secret)
        return "" if keys and all(len(key) in KEY_BYTES for key in keys) else WRONG_SECRET

    def deliver(self, request: SendRequest, url: str, secret: str) -> SendResult:
        """Post the message with a signature for each secret: during a rotation the receiver knows one of them."""
        if self.secret_problem(secret):
            return SendResult(
                outcome=Outcome.PERMANENT_FAIL,
                error_code=ErrorCode.PROVIDER_CONFIG,
                error_message="the channel has no signing secret that can be used",
            )
        payload = self.payload(request)
        body, message_id, timestamp = (
            encode_json(payload),
            f"msg_{stable_id(request, self.options).hex}",
            int(time.time()),
        )
        content = f"{message_id}.{timestamp}.".encode() + body
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signature(key, content) for key in _keys(secret)),
        }
        return self.read(self.poster.post(url, body, headers), payload)

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the event, in the form that the specification recommends."""
        return {
            "type": self.event,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "data": self.fields(request),
        }


def signature(key: bytes, content: bytes) -> str:
    """Return one signature of the specification's first version."""
    return f"v1,{base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()}"


def _keys(secret: str) -> list[bytes]:
    """Return the keys of one or more secrets, the newest first; an empty list where one of them cannot be read."""
    try:
        return [base64.b64decode(part.removeprefix(_MARK), validate=True) for part in secret.split(",")]
    except (binascii.Error, ValueError):
        return []
