"""Feishu and Lark Flow webhooks: a user's own flow is started with our fields and posts the message.

Users build their flows on these fields, so they are stable. Meaning of answers: docs/providers.md.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

from notifications.conf import ServiceOptions, service_options
from notifications.providers.base import Endpoint, SendRequest, SendResult, without_secrets
from notifications.providers.http import EXCERPT_LIMIT, Answer, HttpPoster, origin_of
from notifications.secret import SecretUnreadable
from notifications.states import AuthType, ErrorCode, Outcome

HOSTS = ("www.feishu.cn", "feishu.cn", "www.larksuite.com", "larksuite.com")
PATH = re.compile(r"/flow/api/trigger-webhook/[A-Za-z0-9_-]{8,128}")

Verdict = tuple[Outcome, ErrorCode]
RATE_LIMITED: Verdict = (Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_RATE_LIMITED)
SERVER_TROUBLE: Verdict = (Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_5XX)
UNMAPPED: Verdict = (Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_UNMAPPED)
CONTENT: Verdict = (Outcome.PERMANENT_FAIL, ErrorCode.PAYLOAD_INVALID)
ENDPOINT: Verdict = (Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_CONFIG)
AUTH: Verdict = (Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_AUTH_FAILED)

BODY_CODES: dict[int, Verdict] = {
    # Feishu answers HTTP 200 for most failures, so the code in the body decides first.
    2200: SERVER_TROUBLE,  # internal error
    9499: CONTENT,  # bad request; but see TOO_MANY
    11232: RATE_LIMITED,  # frequency limited
    11246: CONTENT,  # card cannot be parsed
    19001: ENDPOINT,  # access token invalid: bot removed or wrong address
    19002: CONTENT,  # params error
    19007: ENDPOINT,  # bot not enabled
    19021: ENDPOINT,  # signature or timestamp
    19022: ENDPOINT,  # address of ours not on the list
    19024: ENDPOINT,  # keyword not found
    99991400: RATE_LIMITED,  # gateway
    800004509: ENDPOINT,  # workflow is disabled
    800005646: ENDPOINT,  # flow triggers itself
    800005647: CONTENT,  # too large
    800005649: ENDPOINT,  # bad bearer
    800005650: ENDPOINT,  # address of ours not on the list
    800005652: RATE_LIMITED,  # too frequent
    800006003: CONTENT,  # not JSON
}
TOO_MANY = re.compile("too many request", re.IGNORECASE)
"""Code 9499 stands for a bad request and for too many; only the message tells which."""


def check_webhook_url(url: str, options: ServiceOptions) -> str:
    """Return why this address may not be used as a Flow webhook, or an empty string.

    Rules: https, a Feishu or Lark host, no port, user, query or fragment, path /flow/api/trigger-webhook/KEY.
    An origin in SANDBOX_ORIGINS stands in for scheme and host.
    """
    if not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        return "has characters that do not belong in an address"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not an address"
    if origin_of(url) not in options.sandbox_origins:
        if parts.scheme != "https":
            return "must begin with https://"
        if parts.netloc not in HOSTS:
            return f"must be on one of {', '.join(HOSTS)}"
    if "@" in parts.netloc or parts.query or parts.fragment or "?" in url or "#" in url:
        return "must have no user, query or fragment"
    if not PATH.fullmatch(parts.path):
        return "must be /flow/api/trigger-webhook/ and a key"
    return ""


class FeishuFlowProvider:
    """Starts the user's Feishu (Lark) flow."""

    channel: ClassVar[str] = "feishu"

    def __init__(self) -> None:
        self.options = service_options()
        self.poster = HttpPoster(self.options)

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Post the message to the user's flow; skipped when there is none or it is switched off."""
        if endpoint is None or not endpoint.enabled or not endpoint.webhook_url:
            text = "the user has no Feishu channel" if endpoint is None else "the channel is switched off"
            return SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.RECIPIENT_MISSING, error_message=text)
        try:
            url = endpoint.webhook_url.reveal()
            token = endpoint.bearer_token.reveal() if endpoint.auth_type == AuthType.BEARER else ""
        except SecretUnreadable as error:
            # Temporary: the right key in the settings mends it without touching the record.
            return SendResult(
                outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.PROVIDER_CONFIG, error_message=str(error)
            )
        if problem := check_webhook_url(url, self.options):
            return SendResult(
                outcome=Outcome.PERMANENT_FAIL,
                error_code=ErrorCode.INVALID_URL,
                error_message=f"the webhook address {problem}",
            )
        payload = self.payload(request)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = self.poster.post(url, json.dumps(payload, ensure_ascii=False).encode(), headers)
        if isinstance(answer, SendResult):
            return SendResult(
                outcome=answer.outcome,
                error_code=answer.error_code,
                error_message=answer.error_message,
                request_payload=payload,
            )
        return without_secrets(judge(answer, payload), (url.rpartition("/")[2], token))

    def payload(self, request: SendRequest) -> dict[str, Any]:
        """Return the fields a user's flow is built on."""
        fields: dict[str, Any] = {
            "event": self.options.feishu_event,
            "version": "1",
            "notification_id": request.notification_id,
            "user_id": request.user_id,
            "preview_id": request.preview_id,
            "trigger_id": request.trigger_id,
            "trigger_type": request.trigger_type,
            "target_type": request.target_type,
            "target_id": request.target_id,
            "message": {
                "title": self.options.feishu_title,
                "summary": request.message_text,
                "action_text": self.options.feishu_action_text,
                "action_url": self.options.frontend_base_url.rstrip("/") + request.target_url,
            },
        }
        if request.trace_id:
            fields["trace_id"] = request.trace_id
        fields["sent_at"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return fields


def judge(answer: Answer, payload: Any) -> SendResult:
    """Return what the answer means: the code in the body first, then the HTTP status."""
    try:
        body = json.loads(answer.text)
    except (ValueError, RecursionError):
        body = None
    code, message = _code_and_message(body)
    if code:
        outcome, error_code = _by_code(code, message, answer.status)
        text = f"code {code}: {message}" if message else f"code {code}"
    else:
        outcome, error_code = _by_status(answer.status)
        text = f"HTTP {answer.status}"
    success = outcome == Outcome.SUCCESS
    return SendResult(
        outcome=outcome,
        error_code="" if success else error_code,
        error_message="" if success else text,
        request_payload=payload,
        response_payload=body if body is not None else (answer.text[:EXCERPT_LIMIT] or None),
        http_status=answer.status,
        response_excerpt=answer.text[:EXCERPT_LIMIT],
        retry_after=answer.retry_after,
    )


def _code_and_message(body: Any) -> tuple[int, str]:
    """Return the failure code of a body, 0 for success or none, and its message."""
    if not isinstance(body, dict):
        return 0, ""
    code = body.get("code", body.get("StatusCode", 0))
    if isinstance(code, str) and re.fullmatch(r"-?\d{1,18}", code):
        code = int(code)
    message = body.get("msg") or body.get("StatusMessage") or ""
    if not isinstance(code, int):
        code = -1 if code else 0  # a code we cannot even read is no success
    return code, str(message)[:200]


def _by_code(code: int, message: str, status: int) -> Verdict:
    if code == 9499 and TOO_MANY.search(message):
        return RATE_LIMITED
    if verdict := BODY_CODES.get(code):
        return verdict
    return UNMAPPED if status < 400 else _by_status(status)


def _by_status(status: int) -> Verdict:
    """The Go service's classes."""
    if 200 <= status < 300:
        return Outcome.SUCCESS, ErrorCode.PAYLOAD_INVALID
    if status == 429:
        return RATE_LIMITED
    if status >= 500:
        return SERVER_TROUBLE
    if status in (401, 403):
        return AUTH
    return CONTENT
