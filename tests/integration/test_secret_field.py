"""The model field for secrets: encrypted in instances, in the database and in fixtures."""

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


def read_columns(channel: UserNotificationChannel) -> tuple[str, str]:
    """Return the two columns as the table contains them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT webhook_url, bearer_token FROM user_notification_channels WHERE id = %s", [channel.pk])
        row: tuple[str, str] = cursor.fetchone()
    return row


class TestAssignment:
    def test_an_instance_does_not_contain_the_plain_text(self) -> None:
        channel = UserNotificationChannel(webhook_url=URL)
        channel.bearer_token = TOKEN

        assert isinstance(channel.webhook_url, Secret)
        assert (channel.webhook_url.reveal(), channel.bearer_token.reveal()) == (URL, TOKEN)
        assert "canary" not in f"{vars(channel)} {channel!r} {channel}"

    def test_an_instance_from_the_database_contains_secrets(self, channel: UserNotificationChannel) -> None:
        stored = UserNotificationChannel.objects.get()

        assert isinstance(stored.webhook_url, Secret)
        assert stored.webhook_url == channel.webhook_url
        assert (stored.webhook_url.reveal(), stored.bearer_token.reveal()) == (URL, TOKEN)

    def test_a_deferred_field_is_a_secret(self, channel: UserNotificationChannel) -> None:
        stored = UserNotificationChannel.objects.defer("webhook_url").get()

        assert stored.webhook_url.reveal() == URL

    def test_a_blank_stays_blank(self, make_user: Callable[..., User]) -> None:
        channel = UserNotificationChannel.objects.create(user=make_user())

        assert read_columns(channel) == ("", "")
        assert not UserNotificationChannel.objects.get().webhook_url


class TestStorage:
    def test_the_table_contains_ciphertext(self, channel: UserNotificationChannel) -> None:
        url, token = read_columns(channel)

        assert "canary" not in url + token
        assert (url, token) == (channel.webhook_url.ciphertext, channel.bearer_token.ciphertext)

    def test_saving_again_keeps_the_ciphertext(self, channel: UserNotificationChannel) -> None:
        before = read_columns(channel)

        UserNotificationChannel.objects.get().save()

        assert read_columns(channel) == before

    def test_a_queryset_update_encrypts(self, channel: UserNotificationChannel) -> None:
        UserNotificationChannel.objects.update(bearer_token="canary-other")

        assert "canary" not in read_columns(channel)[1]
        assert UserNotificationChannel.objects.get().bearer_token.reveal() == "canary-other"

    def test_a_bulk_insert_encrypts(self, make_user: Callable[..., User]) -> None:
        [channel] = UserNotificationChannel.objects.bulk_create(
            [UserNotificationChannel(user=make_user(), webhook_url=URL)]
        )

        assert "canary" not in read_columns(channel)[0]

    def test_a_row_can_be_read_without_the_key_of_its_secrets(
        self, channel: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

        stored = UserNotificationChannel.objects.get()

        assert stored.enabled
        with pytest.raises(SecretUnreadable):
            stored.webhook_url.reveal()


class TestFixtures:
    def dump(self) -> str:
        out = io.StringIO()
        call_command("dumpdata", "notifications.usernotificationchannel", stdout=out)
        return out.getvalue()

    def test_a_dump_contains_no_plain_text(self, channel: UserNotificationChannel) -> None:
        dump = self.dump()

        assert "canary" not in dump
        assert json.loads(dump)[0]["fields"]["webhook_url"] == f"fernet:{channel.webhook_url.ciphertext}"

    def test_a_loaded_dump_restores_the_ciphertext(
        self, channel: UserNotificationChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dump, before = self.dump(), read_columns(channel)
        UserNotificationChannel.objects.all().delete()
        monkeypatch.setattr("sys.stdin", io.StringIO(dump))

        call_command("loaddata", "-", format="json", verbosity=0)

        assert read_columns(channel) == before
        assert UserNotificationChannel.objects.get().webhook_url.reveal() == URL

    def test_plain_text_in_a_fixture_is_encrypted(
        self, channel: UserNotificationChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = json.loads(self.dump())
        rows[0]["fields"] |= {"webhook_url": "https://canary-by-hand.example", "bearer_token": ""}
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(rows)))

        call_command("loaddata", "-", format="json", verbosity=0)

        url, token = read_columns(channel)
        assert "canary" not in url
        assert token == ""
        assert UserNotificationChannel.objects.get().webhook_url.reveal() == "https://canary-by-hand.example"
