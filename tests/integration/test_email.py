"""The email provider, with a local mail server."""

from __future__ import annotations

import dataclasses
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult
from django.core import mail
from django.core.mail.utils import DNS_NAME
from pytest_django import Settings

from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Endpoint, SendResult
from notifications.providers.email import SMTP_RULES, EmailProvider, smtp_failure_result
from notifications.providers.smtp_backend import EmailBackend
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST
from tests.support.factories import make_record
from tests.support.mail_server import Mailbox, StallingMailServer, configure_mail, run_mail_server

ADDRESS = "canary.alice@example.com"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def mailbox(settings: Settings) -> Iterator[Mailbox]:
    """A running mail server that the project's settings name."""
    mailbox = Mailbox()
    with run_mail_server(mailbox) as port:
        configure_mail(settings, port)
        yield mailbox


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
    def test_the_mail_has_the_message_and_the_link(self, mailbox: Mailbox) -> None:
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

    def test_a_site_with_other_letters_than_ascii_has_a_plain_message_id_and_an_encoded_link(
        self, mailbox: Mailbox, change: Callable[..., None]
    ) -> None:
        change(FRONTEND_BASE_URL="https://bücher.example")

        attempt_send(EmailProvider(), dataclasses.replace(REQUEST, target_url="/a b"), endpoint())

        [message] = mailbox.mails
        assert re.fullmatch(r"<[0-9a-f-]{36}@xn--bcher-kva\.example>", message["Message-ID"])
        assert message.get_content().split()[-1].endswith("/a%20b")

    def test_mail_programs_find_the_page_where_users_switch_mails_off(
        self, mailbox: Mailbox, change: Callable[..., None]
    ) -> None:
        values = (
            "",
            "https://app.example.com/settings",
            "mailto:off@example.com?subject=off",
            f"https://a/{'x' * 300}",
        )
        for value in values:
            change(UNSUBSCRIBE_URL=value)
            send()

        headers = [message.get("List-Unsubscribe", "").strip() for message in mailbox.mails]  # a long one is folded
        assert headers == [f"<{value}>" if value else "" for value in values]

    def test_the_users_own_address_is_used_if_the_channel_has_none(self, mailbox: Mailbox) -> None:
        send(endpoint("", user_email="own@example.com"))
        send(endpoint(user_email="own@example.com"))

        assert mailbox.recipients == ["own@example.com", ADDRESS]

    def test_the_projects_email_backend_is_used(self, settings: Settings) -> None:
        settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

        assert send().outcome == Outcome.SUCCESS
        assert [message.to for message in mail.outbox] == [[ADDRESS]]


class TestErrorReplies:
    def test_each_command_and_reply_class_has_its_result(self, mailbox: Mailbox) -> None:
        rows = [
            ("RCPT", "550 5.1.1 no such user", Outcome.PERMANENT_FAIL, "provider_config"),
            ("RCPT", "550 5.7.1 relaying denied", Outcome.PERMANENT_FAIL, "provider_auth_failed"),
            ("RCPT", "552 5.2.2 mailbox full", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "552 too many recipients", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "550 the mailbox is full", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "550 User's mailbox is out of space", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "550 recipient has exceeded the quota", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "554 insufficient system storage", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "554 5.3.2 not accepting messages", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "554 5.4.5 congestion", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "550 5.4.1 address rejected: access denied", Outcome.PERMANENT_FAIL, "provider_config"),
            ("RCPT", "550 5.2.1 mailbox disabled", Outcome.PERMANENT_FAIL, "provider_config"),
            ("DATA", "554 5.2.2 over quota", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("DATA", "552 5.3.1 system full", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("RCPT", "450 4.2.0 greylisted", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("MAIL", "550 5.1.8 bad sender", Outcome.PERMANENT_FAIL, "provider_auth_failed"),
            ("MAIL", "451 4.3.0 later", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("MAIL", "421 4.3.2 shutting down", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("DATA", "554 5.7.1 spam", Outcome.PERMANENT_FAIL, "payload_invalid"),
            ("DATA", "552 5.3.4 too big", Outcome.PERMANENT_FAIL, "payload_invalid"),
            ("DATA", "452 4.3.1 disk full", Outcome.TEMPORARY_FAIL, "provider_5xx"),
        ]

        for command, reply, outcome, code in rows:
            mailbox.replies = {command: reply}

            result = send()

            assert (result.outcome, result.error_code) == (outcome, code), (command, reply)
            assert result.project_at_fault == (code == "provider_auth_failed"), (command, reply)
            assert reply[4:] in result.error_message
            assert not result.maybe_delivered, (command, reply)
            assert mailbox.mails == [], (command, reply)

    def test_every_reply_of_the_class_of_success_to_a_message_means_accepted(self, mailbox: Mailbox) -> None:
        for code in (200, 250, 251, 299):
            mailbox.replies = {"DATA": f"{code} taken"}

            assert send().outcome == Outcome.SUCCESS, code

    def test_errors_of_the_projects_own_server_are_temporary(self) -> None:
        rows: list[tuple[smtplib.SMTPException, str]] = [
            (smtplib.SMTPAuthenticationError(535, b"5.7.8 bad login"), "provider_auth_failed"),
            (smtplib.SMTPConnectError(554, b"no service"), "provider_5xx"),
            (smtplib.SMTPHeloError(504, b"who"), "provider_5xx"),
            (smtplib.SMTPNotSupportedError("no STARTTLS"), "provider_auth_failed"),
            (smtplib.SMTPException("odd"), "provider_5xx"),
            (smtplib.SMTPConnectError(-1, b"no number"), "provider_5xx"),
        ]

        for error, code in rows:
            result = smtp_failure_result(error)

            assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, code), error
            assert result.project_at_fault == (code == "provider_auth_failed"), error

    def test_the_last_rule_matches_every_error(self) -> None:
        last = SMTP_RULES[-1]

        assert (last.step, last.first, last.last, last.message) == (smtplib.SMTPException, 0, 999, "")

    def test_the_address_is_not_in_the_result(self, mailbox: Mailbox) -> None:
        mailbox.replies["RCPT"] = f"550 5.1.1 <{ADDRESS}> unknown"

        assert ADDRESS not in repr(send())

    def test_a_refused_login_is_temporary(self, settings: Settings) -> None:
        def refuse(*args: Any) -> AuthResult:
            return AuthResult(success=False, handled=False)

        with run_mail_server(Mailbox(), authenticator=refuse, auth_require_tls=False) as port:
            configure_mail(settings, port, EMAIL_HOST_USER="u", EMAIL_HOST_PASSWORD="canary-mail-password")
            result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_auth_failed")
        assert "canary-mail-password" not in repr(result)


class TestTimeouts:
    @pytest.fixture
    def serve(self, settings: Settings, change: Callable[..., None]) -> Iterator[Callable[..., StallingMailServer]]:
        """Return a function that starts a stalling server and configures it."""
        change(READ_TIMEOUT=0.5, TOTAL_TIMEOUT=2.0)
        servers: list[StallingMailServer] = []

        def start(*lines: bytes, **options: Any) -> StallingMailServer:
            servers.append(StallingMailServer(*lines, **options))
            configure_mail(settings, servers[-1].port)
            return servers[-1]

        yield start
        for server in servers:
            server.stop()

    def test_no_reply_before_the_message_is_a_timeout(self, serve: Callable[..., StallingMailServer]) -> None:
        serve(b"220 here\r\n")

        result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert not result.maybe_delivered

    def test_no_reply_after_the_message_is_maybe_delivered(self, serve: Callable[..., StallingMailServer]) -> None:
        serve(b"220 here\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")

        result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert result.maybe_delivered
        assert "the message may have arrived" in result.error_message

    def test_a_reply_without_a_number_is_an_error_of_the_server(self, serve: Callable[..., StallingMailServer]) -> None:
        before = {
            "as the greeting": [b"hello\r\n"],
            "to the sender": [b"220 here\r\n", b"250 hi\r\n", b"well\r\n"],
            "to the recipient": [b"220 here\r\n", b"250 hi\r\n", b"250 ok\r\n", b"well\r\n"],
            "before the message": [b"220 here\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"well\r\n"],
        }
        for name, lines in before.items():
            serve(*lines)

            result = send()

            assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_5xx"), name
            assert not result.maybe_delivered, name

    def test_an_unclear_reply_to_the_message_means_that_it_may_have_arrived(
        self, serve: Callable[..., StallingMailServer]
    ) -> None:
        for reply in (b"well\r\n", b"354 go on\r\n", b"100 wait\r\n", b"999 odd\r\n"):
            serve(b"220 here\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", reply)

            result = send()

            assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_5xx"), reply
            assert result.maybe_delivered, reply

    @pytest.mark.parametrize("slow", ["the name of this host", "the name of the mail server"])
    def test_total_timeout_bounds_the_lookup_of(
        self,
        slow: str,
        settings: Settings,
        change: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        configure_mail(settings, 1)
        change(TOTAL_TIMEOUT=0.3)
        ended = threading.Event()

        def look_up(*args: Any, **kwargs: Any) -> Any:
            ended.wait(60)
            raise OSError

        monkeypatch.delattr(DNS_NAME, "_fqdn", raising=False)
        monkeypatch.setattr(socket, "getfqdn" if "this host" in slow else "getaddrinfo", look_up)
        result = send()
        still_looking = not ended.is_set()
        ended.set()

        assert still_looking
        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert not result.maybe_delivered

    def test_total_timeout_bounds_a_slow_reply(self, serve: Callable[..., StallingMailServer]) -> None:
        server = serve(b"220 here", drip=True)

        result = send()

        assert result.outcome == Outcome.TEMPORARY_FAIL
        assert not server.drip_completed

    def test_a_refused_connection_is_a_network_error(self, settings: Settings) -> None:
        configure_mail(settings, 1)

        result = send()

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "network_error")
        assert not result.maybe_delivered

    def test_tls_connections_enforce_the_deadline(self) -> None:
        backend = EmailBackend(use_ssl=True)

        assert issubclass(backend.connection_class, smtplib.SMTP_SSL)
        assert backend.ssl_context.sslsocket_class is not ssl.SSLSocket
        assert backend.ssl_context.verify_mode == ssl.CERT_REQUIRED


class TestAddresses:
    def test_other_texts_than_one_address_are_refused(self, mailbox: Mailbox) -> None:
        addresses = [
            "nobody",
            "a@b@c.example",
            "a@example.com\r\nBcc: evil@example.com",
            "a@example.com\n",
            "a@example.com, b@example.com",
            "Alice <a@example.com>",
            "a b@example.com",
            "mailto:a@example.com?cc=b@example.com",
            "https://www.feishu.cn/flow/api/trigger-webhook/canary0",
        ]

        for address in addresses:
            result = send(endpoint(address))
            assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "invalid_url"), address
        assert mailbox.mails == []

    def test_a_missing_address_or_disabled_channel_is_skipped(self, mailbox: Mailbox) -> None:
        for target in (endpoint(""), endpoint(enabled=False)):
            result = attempt_send(EmailProvider(), REQUEST, target)
            assert (result.outcome, result.error_code) == (Outcome.SKIPPED, "recipient_missing")
        assert attempt_send(EmailProvider(), REQUEST, None).outcome == Outcome.SKIPPED
        assert mailbox.mails == []

    def test_an_unreadable_address_is_a_temporary_failure(self, mailbox: Mailbox) -> None:
        result = send(endpoint(webhook_url=Secret("gAAAAnot-ours")))

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_config")


@pytest.mark.django_db(transaction=True)
class TestEngine:
    def test_the_users_current_address_is_used(self, mailbox: Mailbox, make_user: Callable[..., Any]) -> None:
        user = make_user(email="before@example.com")
        UserNotificationChannel.objects.create(user=user, channel="email")
        type(user).objects.filter(pk=user.pk).update(email="now@example.com")
        make_record("pending", channel="email", user_id=user.pk, next_attempt_at=LONG_AGO)

        Engine().deliver_due()

        assert NotificationRecord.objects.get().status == "sent"
        assert mailbox.recipients == ["now@example.com"]

    @pytest.mark.parametrize("enabled", [True, False, None])
    def test_a_user_without_a_usable_channel_is_skipped(
        self, mailbox: Mailbox, make_user: Callable[..., Any], enabled: bool | None
    ) -> None:
        user = make_user(email="" if enabled else "a@example.com")
        if enabled is not None:
            UserNotificationChannel.objects.create(user=user, channel="email", enabled=enabled)
        make_record("pending", channel="email", user_id=user.pk, next_attempt_at=LONG_AGO)

        Engine().deliver_due()

        assert NotificationRecord.objects.get().status == "skipped"
        assert mailbox.mails == []
