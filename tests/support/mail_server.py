"""Local mail servers: one that follows a script of replies, and one that stops replying."""

from __future__ import annotations

import contextlib
import email
import email.policy
import socket
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from pytest_django import Settings


class Mailbox:
    """A handler of aiosmtpd that replies as configured and keeps the accepted mails."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.replies: dict[str, str] = {}
        """Reply by command: MAIL, RCPT or DATA. Without an entry, the command succeeds."""

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.mail_from = address
        return self.replies.get("MAIL", "250 OK")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return self.replies.get("RCPT", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        reply = self.replies.get("DATA", "250 OK")
        if reply.startswith("250"):
            self.recipients += envelope.rcpt_tos
            self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return reply


@contextlib.contextmanager
def run_mail_server(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    """Run a mail server while the block runs, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def configure_mail(settings: Settings, port: int, **more: Any) -> None:
    """Let the project's email settings name the server on this port."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.DEFAULT_FROM_EMAIL = "SmartMate <noreply@app.example.com>"
    for name, value in more.items():
        setattr(settings, name, value)


class StallingMailServer(threading.Thread):
    """A server that sends these lines, one per command, and then nothing, or one byte at a time."""

    def __init__(self, *lines: bytes, drip: bool = False) -> None:
        super().__init__()
        self.lines, self.drip, self.drip_completed = list(lines), drip, False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self.server.accept()
            with client:
                for number, line in enumerate(self.lines):
                    if number:
                        client.recv(65536)
                    client.sendall(line)
                for _ in range(300 if self.drip else 0):
                    if self.stopping.wait(0.1):
                        return
                    client.sendall(b"x")
                self.drip_completed = self.drip
                self.stopping.wait(30)

    def stop(self) -> None:
        self.stopping.set()
        self.server.close()
        self.join()
