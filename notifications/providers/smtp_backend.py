"""Django's SMTP backend with a deadline for the whole attempt: a slow mail server cannot block a sender."""

from __future__ import annotations

import smtplib
import socket
import ssl
from functools import partial
from typing import Any

from django.core.mail.backends import smtp
from django.core.mail.utils import DNS_NAME
from django.utils.functional import cached_property

from notifications.exceptions import NotificationError
from notifications.providers.http.deadline import DeadlineSocket, DeadlineSSLSocket, look_up, request_deadline


class SmtpReplyLost(NotificationError, smtplib.SMTPServerDisconnected):
    """The connection ended after the message was sent and before the server replied: it may have arrived."""


class SmtpReplyUnclear(NotificationError, smtplib.SMTPDataError):
    """The reply to the message has no code, or one that RFC 5321 does not allow there: it may have arrived."""


class _SMTP(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> DeadlineSocket:
        plain = self._connect(host, port, timeout)
        guarded = DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
        guarded.settimeout(timeout)
        return guarded

    def data(self, msg: Any) -> tuple[int, bytes]:
        try:
            code, reply = super().data(msg)
        except smtplib.SMTPResponseException:  # an OSError too: the command DATA was refused, so nothing was sent
            raise
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            raise SmtpReplyLost("no reply to the message") from error
        if not 200 <= code < 600 or 300 <= code < 400:
            raise SmtpReplyUnclear(code, reply)
        # RFC 5321, section 4.2.1: the first digit decides. smtplib takes only 250 for a success.
        return (250 if code < 300 else code), reply

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:
        addresses = look_up(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
        failure: OSError = OSError("no address")
        for *_, address in addresses:
            try:
                seconds = min(timeout, request_deadline.remaining_seconds())
                return socket.create_connection((str(address[0]), port), seconds, self.source_address)
            except OSError as error:
                failure = error
        raise failure


class _SMTPOverTLS(smtplib.SMTP_SSL, _SMTP):
    """The order of the bases matters: SMTP_SSL must wrap the socket that _SMTP creates."""


class EmailBackend(smtp.EmailBackend):
    """Replaces `django.core.mail.backends.smtp.EmailBackend` and reads the same settings."""

    def open(self) -> bool | None:
        """Connect and log in, unless there is a connection. Return whether there is a new one.

        Raises:
            TimeoutError: The name of this host, which the greeting contains, was not found within the deadline. Django
                keeps the name once it is found.
        """
        if self.connection is None:
            look_up(DNS_NAME.get_fqdn)
        return super().open()

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
