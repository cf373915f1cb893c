"""Any receiver that implements the Standard Webhooks specification (www.standardwebhooks.com).

Each request has an id, a timestamp and a signature. The id is the same for each retry, so the receiver can drop
duplicates.
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

from notifications.content.json_encoding import encode_json
from notifications.providers.base import SendRequest, SendResult, stable_id
from notifications.providers.http.messages import Exchange, HttpRequest
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.response_rules import (
    AUTH_FAILED,
    CLOCK_REFUSED,
    ENDPOINT_CONFIG,
    MESSAGE_REFUSED,
    RETRIED_STATUSES,
    SENT,
    RuleTable,
    StatusRule,
)
from notifications.providers.webhook_base import WebhookProvider
from notifications.states import AuthType, ErrorCode, Outcome

ADDRESS_RULES = AddressRules(
    hosts=re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?(:[1-9]\d{0,4})?"),
    wrong_host=gettext_noop("must name a host in small letters, not a number"),
    path=re.compile(r"(/.*)?"),
    wrong_path=gettext_noop("is not an address"),
    query_allowed=True,
    extras=gettext_noop("must have no user or fragment"),
)
_KEY_PREFIX = "whsec_"
KEY_LENGTHS_BYTES = range(24, 65)
"""Valid lengths of a key, from the specification."""
INVALID_SECRET = gettext_noop(
    "must be whsec_ followed by 24 to 64 bytes in Base64; during a rotation, two of them separated by a comma"
)

_CLOCK_WORDS = (
    # The words of receivers' libraries, such as "Message timestamp too old" of the specification's own ones.
    r"timestamp.{0,40}(too[ _-]?(old|new|early|late|far)|outside|expired|not within|tolerance|skew|stale)"
    r"|timestamp.{0,40}in the (future|past)"
    r"|(stale|expired|old|outdated)[ _-]timestamp|tolerance zone|clock[ _-]?skew|time[ _-]?too[ _-]?skewed"
    r"|时间戳.{0,10}(过期|失效|超时|过旧|超前)"
)

# fmt: off
STANDARD_WEBHOOK_RULES = RuleTable((), (
    # The specification defines the meaning of the status only. The body is read only to tell a wrong clock, which the
    # receiver refuses like a wrong signature: the specification, "Verifying webhook authenticity".
    StatusRule(200, 299, SENT),
    StatusRule(400, 499, CLOCK_REFUSED,   "check the clock of this server, not the secret", body=_CLOCK_WORDS),
    StatusRule(410, 410, ENDPOINT_CONFIG, "the receiver no longer uses this address: enter the new one"),
    StatusRule(401, 401, AUTH_FAILED,     "enter the receiver's signing secret"),
    StatusRule(403, 403, AUTH_FAILED,     "enter the receiver's signing secret"),
    *RETRIED_STATUSES,
    StatusRule(100, 999, MESSAGE_REFUSED),
))
# fmt: on


class StandardWebhookProvider(WebhookProvider):
    """Posts a signed event to an address that the user chooses."""

    channel = "webhook"
    name = "webhook"
    table = STANDARD_WEBHOOK_RULES
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.SIGNATURE,)

    def address_problem(self, url: str) -> str:
        """Return why an address is not accepted, or an empty string. Its IP address is checked when connecting."""
        return ADDRESS_RULES.problem(url, self.options)

    def secret_problem(self, secret: str) -> str:
        """Return why a text is not one or more secrets of the specification, or an empty string."""
        keys = _decode_keys(secret)
        return "" if keys and all(len(key) in KEY_LENGTHS_BYTES for key in keys) else INVALID_SECRET

    def deliver(self, request: SendRequest, url: str, secret: str) -> Exchange:
        """Ask to post the message with a signature for each secret. During a rotation the receiver knows only one.

        Args:
            request: The message.
            url: The user's address.
            secret: One or more signing secrets, separated by commas.

        Returns:
            The result. A permanent failure, without a request, if the secret cannot be used.
        """
        if self.secret_problem(secret):
            return SendResult(
                outcome=Outcome.PERMANENT_FAIL,
                error_code=ErrorCode.PROVIDER_CONFIG,
                error_message="the channel has no usable signing secret",
            )
        payload = self.payload(request)
        body = encode_json(payload)
        message_id = f"msg_{stable_id(request, self.options).hex}"
        timestamp = int(time.time())
        content = f"{message_id}.{timestamp}.".encode() + body
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(sign_content(key, content) for key in _decode_keys(secret)),
        }
        return self.read((yield HttpRequest(url, body, headers)), payload)

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the event in the form that the specification recommends: type, timestamp and data."""
        return {
            "type": self.event_of(request),
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "data": self.fields(request),
        }


def sign_content(key: bytes, content: bytes) -> str:
    """Return a signature of version v1.

    Args:
        key: The decoded secret.
        content: `id.timestamp.body`, as the specification defines it.
    """
    return f"v1,{base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()}"


def _decode_keys(secret: str) -> list[bytes]:
    """Return the keys of comma-separated secrets, in their order; an empty list if one of them is invalid."""
    try:
        return [base64.b64decode(part.removeprefix(_KEY_PREFIX), validate=True) for part in secret.split(",")]
    except (binascii.Error, ValueError):
        return []
