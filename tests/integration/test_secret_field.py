"""Secrets in the database: encrypted from the first assignment to the last fixture."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from notifications.models import UserNotificationChannel
from notifications.security.secrets import Secret, SecretUnreadable

URL = "https://www.feishu.cn/flow/api/trigger-webhook/canary-url-1f2e"
TOKEN = "canary-token-9a8b"

pytestmark = pytest.mark.django_db


@pytest.fixture
def channel(make_user: Callable[..., User]) -> UserNotificationChannel:
    return UserNotificationChannel.objects.create(user=make_user(), webhook_url=URL, bearer_token=TOKEN)


def columns(channel: UserNotificationChannel) -> tuple[str, str]:
    """Return what stands in the table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT webhook_url, bearer_token FROM user_notification_channels WHERE id = %s", [channel.pk])
        found: tuple[str, str] = cursor.fetchone()
    return found


class TestAssign:
    def test_an_instance_never_holds_the_plain_text(self) -> None:
        channel = UserNotificationChannel(webhook_url=URL)
        channel.bearer_token = TOKEN

        assert isinstance(channel.webhook_url, Secret)
        assert (channel.webhook_url.reveal(), channel.bearer_token.reveal()) == (URL, TOKEN)
        assert "canary" not in f"{vars(channel)} {channel!r} {channel}"

    def test_an_instance_of_the_database_holds_secrets(self, channel: UserNotificationChannel) -> None:
        found = UserNotificationChannel.objects.get()

        assert isinstance(found.webhook_url, Secret)
        assert found.webhook_url == channel.webhook_url
        assert (found.webhook_url.reveal(), found.bearer_token.reveal()) == (URL, TOKEN)

    def test_a_deferred_field_is_a_secret_too(self, channel: UserNotificationChannel) -> None:
        found = UserNotificationChannel.objects.defer("webhook_url").get()

        assert found.webhook_url.reveal() == URL

    def test_a_blank_stays_blank(self, make_user: Callable[..., User]) -> None:
        channel = UserNotificationChannel.objects.create(user=make_user())

        assert columns(channel) == ("", "")
        assert not UserNotificationChannel.objects.get().webhook_url


class TestStore:
    def test_the_table_holds_ciphertext(self, channel: UserNotificationChannel) -> None:
        url, token = columns(channel)

        assert "canary" not in url + token
        assert (url, token) == (channel.webhook_url.ciphertext, channel.bearer_token.ciphertext)

    def test_saving_again_keeps_the_ciphertext(self, channel: UserNotificationChannel) -> None:
        before = columns(channel)

        UserNotificationChannel.objects.get().save()

        assert columns(channel) == before

    def test_an_update_of_many_rows_encrypts(self, channel: UserNotificationChannel) -> None:
        UserNotificationChannel.objects.update(bearer_token="canary-other")

        assert "canary" not in columns(channel)[1]
        assert UserNotificationChannel.objects.get().bearer_token.reveal() == "canary-other"

    def test_a_bulk_insert_encrypts(self, make_user: Callable[..., User]) -> None:
        [channel] = UserNotificationChannel.objects.bulk_create(
            [UserNotificationChannel(user=make_user(), webhook_url=URL)]
        )

        assert "canary" not in columns(channel)[0]

    def test_a_row_whose_key_is_gone_can_be_read_but_not_its_secret(
        self, channel: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

        found = UserNotificationChannel.objects.get()

        assert found.enabled
        with pytest.raises(SecretUnreadable):
            found.webhook_url.reveal()


class TestFixtures:
    def dumped(self) -> str:
        out = io.StringIO()
        call_command("dumpdata", "notifications.usernotificationchannel", stdout=out)
        return out.getvalue()

    def test_a_dump_holds_no_plain_text(self, channel: UserNotificationChannel) -> None:
        dump = self.dumped()

        assert "canary" not in dump
        assert json.loads(dump)[0]["fields"]["webhook_url"] == f"fernet:{channel.webhook_url.ciphertext}"

    def test_a_dump_that_is_loaded_is_what_it_was(
        self, channel: UserNotificationChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dump, before = self.dumped(), columns(channel)
        UserNotificationChannel.objects.all().delete()
        monkeypatch.setattr("sys.stdin", io.StringIO(dump))

        call_command("loaddata", "-", format="json", verbosity=0)

        assert columns(channel) == before
        assert UserNotificationChannel.objects.get().webhook_url.reveal() == URL

    def test_a_fixture_written_by_hand_is_encrypted(
        self, channel: UserNotificationChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = json.loads(self.dumped())
        rows[0]["fields"] |= {"webhook_url": "https://canary-by-hand.example", "bearer_token": ""}
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(rows)))

        call_command("loaddata", "-", format="json", verbosity=0)

        url, token = columns(channel)
        assert "canary" not in url
        assert token == ""
        assert UserNotificationChannel.objects.get().webhook_url.reveal() == "https://canary-by-hand.example"
