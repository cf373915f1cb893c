"""The webhook types that the sandbox imitates: their paths, their signatures, and how they recognise a repeat."""

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
_KNOWN_BY = {"base": "client-token", "webhook": "webhook-id"}
SIGNED_SECONDS = {"bot": 3600, "webhook": 300}
"""How far the time of a signature may be from the sandbox's clock."""


def find(path: str) -> tuple[str, str] | None:
    """Return webhook_type and key of a path, or None.

    Args:
        path: without its query.
    """
    for name, pattern in _PATHS.items():
        if found := pattern.fullmatch(path):
            return name, unquote(found[1])
    return None


def known_by(webhook_type: str, headers: Mapping[str, str]) -> str:
    """Return what the webhook_type knows a repeated request by; blank where it does not.

    Args:
        webhook_type: its name.
        headers: as sent.
    """
    wanted = _KNOWN_BY.get(webhook_type)
    return next((value for name, value in headers.items() if name.lower() == wanted), "")


def refusal(webhook_type: str, secret: str, headers: Mapping[str, str], raw: bytes, now: float) -> str:
    """Return the word of the answer to a request whose signature is wrong; blank if it is right.

    Args:
        webhook_type: its name.
        secret: the receiver's.
        headers: as sent.
        raw: the body.
        now: by the receiver's clock.
    """
    try:
        if webhook_type == "bot":
            body = json.loads(raw)
            moment, given = int(body["timestamp"]), [str(body["sign"])]
            expected = hmac.new(f"{moment}\n{secret}".encode(), b"", hashlib.sha256).digest()
        else:
            values = {name.lower(): value for name, value in headers.items()}
            moment = int(values["webhook-timestamp"])
            given = [part.removeprefix("v1,") for part in values["webhook-signature"].split()]
            key = base64.b64decode(secret.removeprefix("whsec_"))
            content = f"{values['webhook-id']}.{moment}.".encode() + raw
            expected = hmac.new(key, content, hashlib.sha256).digest()
        signed = any(hmac.compare_digest(base64.b64decode(text), expected) for text in given)
        if signed and abs(now - moment) <= SIGNED_SECONDS[webhook_type]:
            return ""
    except (KeyError, TypeError, ValueError, binascii.Error):
        pass
    return "code:19021" if webhook_type == "bot" else "status:401"
