"""The kinds of webhook that the sandbox imitates: their paths, their signatures, and how they detect a repeat."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from urllib.parse import unquote

_PATHS = {
    "flow": re.compile(r"/flow/api/trigger-webhook/([^/]+)"),
    "bot": re.compile(r"/open-apis/bot/v2/hook/([^/]+)"),
    "base": re.compile(r"/base/automation/webhook/event/([^/]+)"),
    "webhook": re.compile(r"/webhook/([^/]+)"),
}
_REQUEST_ID_HEADERS = {"base": "client-token", "webhook": "webhook-id"}
SIGNATURE_TOLERANCE_SECONDS = {"bot": 3600, "webhook": 300}
"""Largest difference between the time of a signature and the receiver's clock, by webhook type."""


def find(path: str) -> tuple[str, str] | None:
    """Return the webhook type and the key of a path; None for another path.

    Args:
        path: Path without its query.
    """
    for name, pattern in _PATHS.items():
        if match := pattern.fullmatch(path):
            return name, unquote(match[1])
    return None


def find_request_id(webhook_type: str, headers: Mapping[str, str]) -> str:
    """Return the id by which the receiver detects a repeated request; blank if it does not detect any.

    Args:
        webhook_type: Name of the webhook type.
        headers: Headers as sent.
    """
    header = _REQUEST_ID_HEADERS.get(webhook_type)
    return next((value for name, value in headers.items() if name.lower() == header), "")


def check_signature(webhook_type: str, secret: str, headers: Mapping[str, str], raw: bytes, now: float) -> str:
    """Return the answer word for a request with a wrong signature; blank if the signature is valid.

    Args:
        webhook_type: Name of the webhook type: "bot" or "webhook".
        secret: The receiver's signing secret.
        headers: Headers as sent.
        raw: The body.
        now: Unix time of the receiver's clock.
    """
    try:
        if webhook_type == "bot":
            body = json.loads(raw)
            timestamp, given = int(body["timestamp"]), [str(body["sign"])]
            expected = hmac.new(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
        else:
            values = {name.lower(): value for name, value in headers.items()}
            timestamp = int(values["webhook-timestamp"])
            given = [part.removeprefix("v1,") for part in values["webhook-signature"].split()]
            key = base64.b64decode(secret.removeprefix("whsec_"))
            content = f"{values['webhook-id']}.{timestamp}.".encode() + raw
            expected = hmac.new(key, content, hashlib.sha256).digest()
        signed = any(hmac.compare_digest(base64.b64decode(text), expected) for text in given)
        if signed and abs(now - timestamp) <= SIGNATURE_TOLERANCE_SECONDS[webhook_type]:
            return ""
    except (KeyError, TypeError, ValueError, binascii.Error):
        pass
    return "code:19021" if webhook_type == "bot" else "status:401"
