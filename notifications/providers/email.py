"""Email, through the project's email backend.

A retry has the same Message-ID as the first attempt. Some mail servers and programs use it to drop duplicates.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import smtplib
import time
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.validators import validate_email
from django.utils.encoding import force_str
from django.utils.translation import gettext_noop

from notifications.conf import service_options
from notifications.providers.attempt import without_secrets
from notifications.providers.base import Endpoint, SendRequest, SendResult, message_link, stable_id
from notifications.providers.http.deadline import request_deadline
from notifications.providers.http.failures import network_failure_result
from notifications.providers.http.messages import MAX_EXCERPT_LENGTH
from notifications.providers.response_rules import ENDPOINT_CONFIG, MESSAGE_REFUSED, SERVER_ERROR, Meaning
from notifications.providers.smtp_backend import SmtpReplyLost, SmtpReplyUnclear
from notifications.security.secrets import SecretUnreadable
from notifications.states import AuthType, ErrorCode, Outcome

DJANGO_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
DEADLINE_SMTP_BACKEND = "notifications.providers.smtp_backend.EmailBackend"
NOT_EMAIL = gettext_noop("is not an email address")
MAX_SUBJECT_CHARACTERS = 200
DEFAULT_MEDIA_TYPE = "application/octet-stream"
_FILE_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,191}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,126}")
LOGIN_FAILED = Meaning(Outcome.TEMPORARY_FAIL, ErrorCode.PROVIDER_AUTH_FAILED, project_at_fault=True)
"""Temporary, because the mail server belongs to the project: correct settings repair it for all waiting records."""
SENDER_REFUSED = Meaning(Outcome.PERMANENT_FAIL, ErrorCode.PROVIDER_AUTH_FAILED, project_at_fault=True)
"""The mail server does not take this mail from the project. The user's address may be right."""


class SmtpRule(NamedTuple):
    """A rule for an error reply of the mail server."""

    step: type[smtplib.SMTPException]
    """Exception of the SMTP command that failed."""
    first: int
    """First reply code of the range."""
    last: int
    """Last reply code of the range, inclusive."""
    message: str
    """Regular expression for the reply; blank for any reply."""
    meaning: Meaning
    remedy: str = ""
    """What a person must do; part of the attempt's error text."""


_LOGIN = "check EMAIL_HOST_USER and EMAIL_HOST_PASSWORD"
_POLICY = "the mail server does not accept mail for this recipient from us"
_RECIPIENT = "the mailbox does not exist: enter another address"
_FULL = (
    r"\b5\.(2\.2|3\.[12]|4\.5)\b|(?i:(mailbox|quota|storage).{0,40}(full|exceeded)|over ?quota"
    r"|exceeded.{0,20}(quota|storage)|out of (storage|space)|insufficient.{0,20}(storage|space))"
)
_MAKE_ROOM = "the mailbox or the mail server is full, or takes no mail now"
_SENDER = "check DEFAULT_FROM_EMAIL"
_FEATURE = "the mail server does not support what the EMAIL settings require"

# fmt: off
SMTP_RULES = (
    # RFC 5321, section 4.2.1: 4yz replies may succeed later, 5yz replies will not. RFC 3463: x.7 is a policy reason.
    # The first row that matches applies.
    SmtpRule(smtplib.SMTPAuthenticationError, 0,   999, "",       LOGIN_FAILED,    _LOGIN),
    SmtpRule(smtplib.SMTPConnectError,        0,   999, "",       SERVER_ERROR),
    SmtpRule(smtplib.SMTPHeloError,           0,   999, "",       SERVER_ERROR),
    SmtpRule(smtplib.SMTPException,           400, 499, "",       SERVER_ERROR),
    # RFC 3463, sections 3.3 to 3.5: x.2.2 a mailbox is full, x.3.1 the system is full, x.3.2 it takes no mail, x.4.5 it
    # is congested. RFC 5321, section 4.5.3.1.10: a 552 for a recipient is temporary. The address is not wrong.
    SmtpRule(smtplib.SMTPException,           500, 599, _FULL,    SERVER_ERROR,    _MAKE_ROOM),
    SmtpRule(smtplib.SMTPRecipientsRefused,   552, 552, "",       SERVER_ERROR,    _MAKE_ROOM),
    SmtpRule(smtplib.SMTPRecipientsRefused,   500, 599, r"5\.7\.", SENDER_REFUSED,  _POLICY),
    SmtpRule(smtplib.SMTPRecipientsRefused,   500, 599, "",       ENDPOINT_CONFIG, _RECIPIENT),
    SmtpRule(smtplib.SMTPSenderRefused,       500, 599, "",       SENDER_REFUSED,  _SENDER),
    SmtpRule(smtplib.SMTPDataError,           500, 599, "",       MESSAGE_REFUSED),
    SmtpRule(smtplib.SMTPNotSupportedError,   0,   999, "",       LOGIN_FAILED,    _FEATURE),
    SmtpRule(smtplib.SMTPException,           0,   999, "",       SERVER_ERROR),
)
# fmt: on


class EmailProvider:
    """Sends one plain mail through the project's email backend.

    The arguments are the OPTIONS of the channel in PROVIDERS.

    Args:
        title: Subject of the mail; by default MESSAGE_TITLE.
        action_text: Text before the link; by default ACTION_TEXT.
    """

    channel: ClassVar[str] = "email"
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE,)
    address_optional: ClassVar[bool] = True

    def __init__(self, *, title: str = "", action_text: str = "") -> None:
        self.options = service_options()
        self.title = title or self.options.message_title
        self.action_text = action_text or self.options.action_text

    def address_problem(self, url: str) -> str:
        """Return why a text is not one email address, or an empty string."""
        try:
            validate_email(url)
        except ValidationError:
            return NOT_EMAIL
        return ""

    def secret_problem(self, secret: str) -> str:
        """Return an empty string: this channel has no secret."""
        return ""

    def data_problem(self, data: Mapping[str, Any]) -> str:
        """Return why the data of a message cannot be used, or an empty string."""
        return email_data_problem(data["email"]) if "email" in data else ""

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Send one mail to the channel's address, or else to the address of the user account.

        Args:
            request: The message.
            endpoint: The user's channel settings, or None.

        Returns:
            The result without the address. Skipped if there is no address or the channel is disabled.
        """
        try:
            address = (endpoint.webhook_url.reveal() or endpoint.user_email) if endpoint else ""
        except SecretUnreadable as error:
            return SendResult(
                outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.PROVIDER_CONFIG, error_message=str(error)
            )
        if endpoint is None or not endpoint.enabled or not address:
            disabled = endpoint is not None and not endpoint.enabled
            text = "the channel is disabled" if disabled else "the user has no email address"
            return SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.RECIPIENT_MISSING, error_message=text)
        if problem := self.address_problem(address):
            return SendResult(
                outcome=Outcome.PERMANENT_FAIL,
                error_code=ErrorCode.INVALID_URL,
                error_message=f"the address {problem}",
            )
        return without_secrets(self._deliver(request, address), (address,))

    def _deliver(self, request: SendRequest, address: str) -> SendResult:
        request_deadline.at = time.monotonic() + self.options.total_timeout
        backend = self._backend()
        message = self.message(request, address, backend)
        message_id = message.extra_headers["Message-ID"]
        payload: dict[str, Any] = {"subject": message.subject, "body": message.body, "message_id": message_id}
        if message.attachments:
            payload["attachments"] = [item[0] for item in message.attachments]
        try:
            message.send()
            result = SendResult(outcome=Outcome.SUCCESS, provider_message_id=message_id)
        except smtplib.SMTPServerDisconnected as error:
            lost = isinstance(error, SmtpReplyLost)
            result = dataclasses.replace(network_failure_result(error), maybe_delivered=lost)
        except smtplib.SMTPException as error:
            result = smtp_failure_result(error)
        except OSError as error:
            result = network_failure_result(error)
        finally:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                backend.close()  # a failed login leaves the connection open
        return dataclasses.replace(result, request_payload=payload)

    def message(self, request: SendRequest, address: str, backend: BaseEmailBackend) -> EmailMessage:
        """Return the mail. Only its body contains texts of the request, so that they cannot add headers.

        Args:
            request: The message.
            address: The recipient.
            backend: The email backend that will send it.
        """
        host = _message_id_host(self.options.frontend_base_url)
        headers = {
            "Message-ID": f"<{stable_id(request, self.options)}@{host}>",
            "Auto-Submitted": "auto-generated",  # RFC 3834: prevents automatic replies
        }
        if self.options.unsubscribe_url:
            headers["List-Unsubscribe"] = f"<{self.options.unsubscribe_url}>"  # RFC 2369, section 3.2
        extras = _read_extras(request)
        mail = EmailMultiAlternatives(
            subject=self._subject(request),
            body=self._body(request),
            to=[address],
            reply_to=extras.reply_to,
            attachments=[*extras.attachments],
            connection=backend,
            headers=headers,
        )
        if request.content and request.content.html:
            mail.attach_alternative(request.content.html, "text/html")
        return mail

    def _subject(self, request: SendRequest) -> str:
        if request.content is None:
            return self.title
        # A subject is one line; Django refuses a line break in it.
        text = request.title or request.message_text.strip().split("\n", 1)[0]
        line = " ".join(text.split())
        return line if len(line) <= MAX_SUBJECT_CHARACTERS else f"{line[: MAX_SUBJECT_CHARACTERS - 1]}…"

    def _body(self, request: SendRequest) -> str:
        url = message_link(request, self.options)
        if not url or (request.content is not None and url in request.message_text):
            return f"{request.message_text}\n"
        action = (request.content.action if request.content else "") or self.action_text
        return f"{request.message_text}\n\n{action}: {url}\n"

    def _backend(self) -> BaseEmailBackend:
        path = settings.EMAIL_BACKEND
        if path == DJANGO_SMTP_BACKEND:
            path = DEADLINE_SMTP_BACKEND
        backend: BaseEmailBackend = get_connection(path, timeout=self.options.read_timeout)
        return backend


class _Extras(NamedTuple):
    """What only mails have, from `data["email"]` of a message."""

    reply_to: list[str]
    attachments: list[tuple[str, bytes, str]]
    """Name, content and type."""


def email_data_problem(data: Any) -> str:
    """Return why `data["email"]` of a message cannot be used, or an empty string. Mark the texts with `gettext_noop`.

    Args:
        data: {"reply_to": [mail addresses], "attachments": [{"name", "content" in Base64, "type"}]}; both optional.
    """
    if not isinstance(data, Mapping) or data.keys() - {"reply_to", "attachments"}:
        return gettext_noop("email: must be an object with reply_to and attachments only")
    try:
        for address in _list_of(data.get("reply_to", []), str):
            validate_email(address)
    except (TypeError, ValidationError):
        return gettext_noop("email: reply_to must be a list of mail addresses")
    try:
        for item in _list_of(data.get("attachments", []), Mapping):
            if item.keys() - {"name", "content", "type"} or not _FILE_NAME.fullmatch(item["name"]):
                raise ValueError
            if not _MEDIA_TYPE.fullmatch(item.get("type", DEFAULT_MEDIA_TYPE)):
                raise ValueError
            base64.b64decode(item["content"], validate=True)
    except (TypeError, KeyError, ValueError):
        return gettext_noop(
            "email: attachments must be a list of objects with name, content (Base64) and type, such as text/csv"
        )
    return ""


def _list_of(values: Any, kind: type) -> list[Any]:
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise TypeError
    return values


def _read_extras(request: SendRequest) -> _Extras:
    data = request.content.data.get("email", {}) if request.content else {}
    attachments = [
        (item["name"], base64.b64decode(item["content"]), item.get("type", DEFAULT_MEDIA_TYPE))
        for item in data.get("attachments", ())
    ]
    return _Extras(list(data.get("reply_to", ())), attachments)


def smtp_failure_result(error: smtplib.SMTPException) -> SendResult:
    """Return the result for an error reply of the mail server, by the first matching rule of SMTP_RULES."""
    code, reply = _read_reply(error)
    rule = next(
        rule
        for rule in SMTP_RULES  # the last rule matches everything
        if isinstance(error, rule.step) and rule.first <= code <= rule.last and re.search(rule.message, reply)
    )
    text = f"reply {code}: {reply[:200]}" if code else type(error).__name__
    return SendResult(
        outcome=rule.meaning.outcome,
        error_code=rule.meaning.error_code,
        error_message=f"{text} ({rule.remedy})" if rule.remedy else text,
        response_payload=reply[:MAX_EXCERPT_LENGTH] or None,
        response_excerpt=reply[:MAX_EXCERPT_LENGTH],
        maybe_delivered=isinstance(error, SmtpReplyUnclear),
        project_at_fault=rule.meaning.project_at_fault,
    )


def _read_reply(error: smtplib.SMTPException) -> tuple[int, str]:
    """Return the server's reply code and text; 0 for no reply, or for one without a code (smtplib has -1 for it)."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        [(code, text), *_] = error.recipients.values()
        return max(code, 0), force_str(text, errors="replace")
    if isinstance(error, smtplib.SMTPResponseException):
        return max(error.smtp_code, 0), force_str(error.smtp_error, errors="replace")
    return 0, ""


def _message_id_host(base_url: str) -> str:
    """Return the site's host in ASCII: a Message-ID with other characters would be encoded, without its brackets."""
    host = urlsplit(base_url).hostname or "notifications.invalid"
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return "notifications.invalid"
