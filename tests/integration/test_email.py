"""Email, to a real little mail server."""

from __future__ import annotations

import contextlib
import email
import email.policy
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from django.core import mail
from pytest_django import Settings

from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers.base import Endpoint, SendResult, attempt_send
from notifications.providers.email import SMTP_RULES, EmailProvider, smtp_failure_result
from notifications.providers.smtp_backend import EmailBackend
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST
from tests.integration.rows import make_record

ADDRESS = "canary.alice@example.com"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Mailbox:
    """A mail server's handler that answers as told and keeps what it took."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.replies: dict[str, str] = {}
        """By step: MAIL, RCPT or DATA."""

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


@pytest.fixture
def mailbox(settings: Settings) -> Iterator[Mailbox]:
    """A mail server that the project's settings name."""
    box = Mailbox()
    with running(box) as controller:
        use(settings, controller.port)
        yield box


@contextlib.contextmanager
def running(box: Mailbox, **options: Any) -> Iterator[Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()


def use(settings: Settings, port: int, **more: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.DEFAULT_FROM_EMAIL = "SmartMate <noreply@app.example.com>"
    for name, value in more.items():
        setattr(settings, name, value)


def endpoint(address: str = ADDRESS, **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "enabled": True,
        "webhook_url": Secret.of(address),
        "auth_type": "none",
        "bearer_token": Secret(""),
    }
    return Endpoint(**fields | changes)


def send(target: Endpoint | None = None) -> SendResult:
    return attempt_send(EmailProvider(), REQUEST, target or endpoint())


class TestMail:
    def test_has_the_message_and_the_link(self, mailbox: Mailbox) -> None:
        result = send()

        [message] = mailbox.mails
        assert result.outcome == Outcome.SUCCESS
        assert mailbox.recipients == [ADDRESS]
        assert message["To"] == ADDRESS
        assert message["From"] == "SmartMate <noreply@app.example.com>"
        assert message["Subject"] == "SmartMate 日程调整建议"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content().split() == [
            *("会议改到周四", "14:00", "Meeting", "moved", "to", "Thursday"),
            *("查看并确认调整:", "https://app.example.com/meetings/9"),
        ]

    def test_a_retry_has_the_same_message_id(self, mailbox: Mailbox) -> None:
        results = [send(), send()]

        first, second = mailbox.mails
        assert first["Message-ID"] == second["Message-ID"] == results[0].provider_message_id
        assert first["Message-ID"].endswith("@app.example.com>")

    def test_goes_to_the_users_own_address_where_the_channel_has_none(self, mailbox: Mailbox) -> None:
        send(endpoint("", user_email="own@example.com"))
        send(endpoint(user_email="own@example.com"))

        assert mailbox.recipients == ["own@example.com", ADDRESS]

    def test_goes_through_whatever_backend_the_project_has(self, settings: Settings) -> None:
        settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

        assert send().outcome == Outcome.SUCCESS
        assert [message.to for message in mail.outbox] == [[ADDRESS]]


class TestRefusals:
    @pytest.mark.parametrize(
        ("step", "reply", "outcome", "code"),
        [
            ("RCPT", "550 5.1.1 no such user", Outcome.PERMANENT_FAIL, "provider_config"),
            ("RCPT", "550 5.7.1 relaying denied", Outcome.PERMANENT_FAIL, "provider_auth_failed"),
            ("RCPT", "450 4.2.0 greylisted", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("MAIL", "550 5.1.8 bad sender", Outcome.PERMANENT_FAIL, "provider_auth_failed"),
            ("MAIL", "451 4.3.0 later", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("MAIL", "421 4.3.2 shutting down", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("DATA", "554 5.7.1 spam", Outcome.PERMANENT_FAIL, "payload_invalid"),
            ("DATA", "552 5.3.4 too big", Outcome.PERMANENT_FAIL, "payload_invalid"),
            ("DATA", "452 4.3.1 disk full", Outcome.TEMPORARY_FAIL, "provider_5xx"),
        ],
    )
    def test_each_step_and_class_has_its_meaning(
        self, mailbox: Mailbox, step: str, reply: str, outcome: Outcome, code: str
    ) -> None:
        mailbox.replies[step] = reply

        result = send()

        assert (result.outcome, result.error_code) == (outcome, code)
        assert reply[4:] in result.error_message
        assert not result.maybe_delivered
        assert mailbox.mails == []

    @pytest.mark.parametrize(
        ("error", "outcome", "code"),
        [
            (smtplib.SMTPAuthenticationError(535, b"5.7.8 bad login"), "temporary_fail", "provider_auth_failed"),
            (smtplib.SMTPConnectError(554, b"no service"), "temporary_fail", "provider_5xx"),
            (smtplib.SMTPHeloError(504, b"who"), "temporary_fail", "provider_5xx"),
            (smtplib.SMTPNotSupportedError("no STARTTLS"), "temporary_fail", "provider_auth_failed"),
            (smtplib.SMTPException("odd"), "temporary_fail", "provider_5xx"),
        ],
    )
    def test_trouble_with_the_projects_own_server_is_temporary(
        self, error: smtplib.SMTPException, outcome: str, code: str
    ) -> None:
        result = smtp_failure_result(error)

        assert (result.outcome, result.error_code) == (outcome, code)

    def test_the_last_row_takes_all_that_is_left(self) -> None:
        last = SMTP_RULES[-1]

        assert (last.step, last.first, last.last, last.message) == (smtplib.SMTPException, 0, 999, "")

    def test_the_address_is_in_no_result(self, mailbox: Mailbox) -> None:
        mailbox.replies["RCPT"] = f"550 5.1.1 <{ADDRESS}> unknown"

        assert ADDRESS not in repr(send())

    def test_a_login_that_fails_waits_for_the_settings(self, settings: Settings) -> None:
        def refuse(*args: Any) -> AuthResult:
            return AuthResult(success=False, handled=False)

        with running(Mailbox(), authenticator=refuse, auth_require_tls=False) as controller:
            use(settings, controller.port, EMAIL_HOST_USER="u", EMAIL_HOST_PASSWORD="canary-mail-password")
            result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_auth_failed")
        assert "canary-mail-password" not in repr(result)


class Silent(threading.Thread):
    """A server that speaks these lines, then nothing, or drips for ever."""

    def __init__(self, *lines: bytes, drip: bool = False) -> None:
        super().__init__()
        self.lines, self.drip, self.dripped_out = list(lines), drip, False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.over = threading.Event()
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
                    if self.over.wait(0.1):
                        return
                    client.sendall(b"x")
                self.dripped_out = self.drip
                self.over.wait(30)

    def stop(self) -> None:
        self.over.set()
        self.server.close()
        self.join()


class TestBounds:
    @pytest.fixture
    def serve(self, settings: Settings, change: Callable[..., None]) -> Iterator[Callable[..., Silent]]:
        """Return a function that lets the settings name a server which stops speaking."""
        change(READ_TIMEOUT=0.5, TOTAL_TIMEOUT=2.0)
        servers: list[Silent] = []

        def start(*lines: bytes, **options: Any) -> Silent:
            servers.append(Silent(*lines, **options))
            use(settings, servers[-1].port)
            return servers[-1]

        yield start
        for server in servers:
            server.stop()

    def test_silence_before_the_message_is_a_timeout(self, serve: Callable[..., Silent]) -> None:
        serve(b"220 here\r\n")

        result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert not result.maybe_delivered

    def test_silence_after_the_message_may_hide_its_arrival(self, serve: Callable[..., Silent]) -> None:
        serve(b"220 here\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")

        result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert result.maybe_delivered
        assert "the message may have arrived" in result.error_message

    def test_a_server_in_drips_cannot_outstay_the_deadline(self, serve: Callable[..., Silent]) -> None:
        server = serve(b"220 here", drip=True)

        result = send()

        assert result.outcome == Outcome.TEMPORARY_FAIL
        assert not server.dripped_out

    def test_nobody_listening_is_network_trouble(self, settings: Settings) -> None:
        use(settings, 1)

        result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "network_error")
        assert not result.maybe_delivered

    def test_tls_is_under_the_deadline_too(self) -> None:
        backend = EmailBackend(use_ssl=True)

        assert issubclass(backend.connection_class, smtplib.SMTP_SSL)
        assert backend.ssl_context.sslsocket_class is not ssl.SSLSocket
        assert backend.ssl_context.verify_mode == ssl.CERT_REQUIRED


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "nobody",
            "a@b@c.example",
            "a@example.com\r\nBcc: evil@example.com",
            "a@example.com\n",
            "a@example.com, b@example.com",
            "Alice <a@example.com>",
            "a b@example.com",
            "mailto:a@example.com?cc=b@example.com",
            "https://www.feishu.cn/flow/api/trigger-webhook/canary0",
        ],
    )
    def test_what_is_no_single_address_is_refused_unsent(self, mailbox: Mailbox, address: str) -> None:
        result = send(endpoint(address))

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "invalid_url")
        assert mailbox.mails == []

    def test_without_an_address_or_switched_off_nothing_is_sent(self, mailbox: Mailbox) -> None:
        for target in (endpoint(""), endpoint(enabled=False)):
            result = attempt_send(EmailProvider(), REQUEST, target)
            assert (result.outcome, result.error_code) == (Outcome.SKIPPED, "recipient_missing")
        assert attempt_send(EmailProvider(), REQUEST, None).outcome == Outcome.SKIPPED
        assert mailbox.mails == []

    def test_an_address_that_cannot_be_read_waits_for_its_key(self, mailbox: Mailbox) -> None:
        result = send(endpoint(webhook_url=Secret("gAAAAnot-ours")))

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_config")


@pytest.mark.django_db(transaction=True)
class TestEngine:
    def test_takes_the_address_the_user_has_at_that_moment(
        self, mailbox: Mailbox, make_user: Callable[..., Any]
    ) -> None:
        user = make_user(email="before@example.com")
        UserNotificationChannel.objects.create(user=user, channel="email")
        type(user).objects.filter(pk=user.pk).update(email="now@example.com")
        make_record("pending", channel="email", user_id=user.pk, next_attempt_at=LONG_AGO)

        Engine().deliver_due()

        assert NotificationRecord.objects.get().status == "sent"
        assert mailbox.recipients == ["now@example.com"]

    @pytest.mark.parametrize("enabled", [True, False, None])
    def test_writes_to_nobody_who_has_no_such_channel(
        self, mailbox: Mailbox, make_user: Callable[..., Any], enabled: bool | None
    ) -> None:
        user = make_user(email="" if enabled else "a@example.com")
        if enabled is not None:
            UserNotificationChannel.objects.create(user=user, channel="email", enabled=enabled)
        make_record("pending", channel="email", user_id=user.pk, next_attempt_at=LONG_AGO)

        Engine().deliver_due()

        assert NotificationRecord.objects.get().status == "skipped"
        assert mailbox.mails == []
