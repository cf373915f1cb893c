"""Django's SMTP backend with a deadline for the whole attempt: a slow mail server cannot block a sender."""

from __future__ import annotations

import smtplib
import socket
import ssl
from typing import Any

from django.core.mail.backends import smtp
from django.utils.functional import cached_property

from notifications.exceptions import NotificationError
from notifications.providers.http.ssrf_guard import DeadlineSocket, DeadlineSSLSocket, request_deadline


class SmtpReplyLost(NotificationError, smtplib.SMTPServerDisconnected):
    """The connection ended after the message was sent and before the server replied: it may have arrived."""


class _SMTP(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> DeadlineSocket:
        connect_timeout = min(timeout, request_deadline.remaining_seconds())
        plain = socket.create_connection((host, port), connect_timeout, self.source_address)
        guarded = DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
        guarded.settimeout(timeout)
        return guarded

    def data(self, msg: Any) -> tuple[int, bytes]:
        try:
            return super().data(msg)
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            raise SmtpReplyLost("no reply to the message") from error


class _SMTPOverTLS(smtplib.SMTP_SSL, _SMTP):
    """The order of the bases matters: SMTP_SSL must wrap the socket that _SMTP creates."""


class EmailBackend(smtp.EmailBackend):
    """Replaces `django.core.mail.backends.smtp.EmailBackend` and reads the same settings."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        """The client class whose sockets enforce the deadline."""
        return _SMTPOverTLS if self.use_ssl else _SMTP

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """Django's TLS context, with sockets that enforce the deadline."""
        context: ssl.SSLContext = super().ssl_context
        context.sslsocket_class = DeadlineSSLSocket
        return context
