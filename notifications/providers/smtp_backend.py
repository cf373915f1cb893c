"""Django's SMTP backend under the deadline of one attempt: a server that answers in drips cannot hold a slot."""

from __future__ import annotations

import smtplib
import socket
import ssl
from typing import Any

from django.core.mail.backends import smtp
from django.utils.functional import cached_property

from notifications.providers.http.ssrf_guard import DeadlineSocket, DeadlineSSLSocket, limits


class SmtpReplyLost(smtplib.SMTPServerDisconnected):
    """The message was on its way when the connection ended: it may have arrived."""


class _SMTP(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> DeadlineSocket:
        plain = socket.create_connection((host, port), min(timeout, limits.left()), self.source_address)
        timed = DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
        timed.settimeout(timeout)
        return timed

    def data(self, msg: Any) -> tuple[int, bytes]:
        try:
            return super().data(msg)
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            raise SmtpReplyLost("no answer to the message") from error


class _SMTPOverTLS(smtplib.SMTP_SSL, _SMTP):
    """The order of the bases matters: TLS is put around the timed socket."""


class EmailBackend(smtp.EmailBackend):
    """Takes the place of Django's own where the project uses that; its settings are the same."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        """The client whose sockets obey the deadline."""
        return _SMTPOverTLS if self.use_ssl else _SMTP

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """Django's context, with sockets that obey the deadline."""
        context: ssl.SSLContext = super().ssl_context
        context.sslsocket_class = DeadlineSSLSocket
        return context
