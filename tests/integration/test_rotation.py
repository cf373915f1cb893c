"""rotate_notification_keys: encrypts all secrets with the newest key, loses none and prints none."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client

from notifications.management.commands import rotate_notification_keys
from notifications.models import UserNotificationChannel
from notifications.security.secrets import Secret, SecretUnreadable

pytestmark = pytest.mark.django_db

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
URL = "https://www.feishu.cn/flow/api/trigger-webhook/canary-url-1f2e"
TOKEN = "canary-token-9a8b"
Change = Callable[..., None]


@pytest.fixture
def make_channels(change: Change) -> Callable[..., UserNotificationChannel]:
    """Return a function that stores channels with the old key and then configures the new key as the first."""

    def make(count: int = 1, token: str = TOKEN) -> UserNotificationChannel:
        change(ENCRYPTION_KEYS=[OLD])
        for _ in range(count):
            user = User.objects.create(username=f"user{User.objects.count()}")
            channel = UserNotificationChannel.objects.create(user=user, webhook_url=URL, bearer_token=token)
        change(ENCRYPTION_KEYS=[NEW, OLD])
        return channel

    return make


def run(*args: str, **options: Any) -> str:
    """Return what the command wrote to stdout."""
    out = StringIO()
    call_command("rotate_notification_keys", *args, stdout=out, **options)
    assert "canary" not in out.getvalue()
    return out.getvalue()


def stored_secrets() -> list[tuple[Secret, Secret]]:
    return [(channel.webhook_url, channel.bearer_token) for channel in UserNotificationChannel.objects.order_by("pk")]


class TestRotate:
    def test_rotated_secrets_decrypt_without_the_old_key(
        self, make_channels: Callable[..., UserNotificationChannel], change: Change
    ) -> None:
        make_channels(3)

        output = run()

        change(ENCRYPTION_KEYS=[NEW])
        assert [(url.reveal(), token.reveal()) for url, token in stored_secrets()] == [(URL, TOKEN)] * 3
        assert "3 channels were checked." in output
        assert "encrypted again with the newest key: 6" in output

    def test_second_rotation_changes_nothing(self, make_channels: Callable[..., UserNotificationChannel]) -> None:
        make_channels(2)
        run()
        before = stored_secrets()

        output = run()

        assert stored_secrets() == before
        assert "encrypted with the newest key already: 4" in output
        assert "encrypted again with the newest key: 0" in output

    def test_dry_run_counts_and_changes_nothing(self, make_channels: Callable[..., UserNotificationChannel]) -> None:
        make_channels(2)
        before = stored_secrets()

        output = run("--dry-run")

        assert stored_secrets() == before
        assert "encrypted with an older key, would be encrypted again: 4" in output

    def test_empty_secrets_stay_empty_and_are_not_counted(
        self, make_channels: Callable[..., UserNotificationChannel]
    ) -> None:
        make_channels(token="")

        output = run()

        assert not stored_secrets()[0][1]
        assert "encrypted again with the newest key: 1" in output

    def test_rotation_writes_only_the_secret_columns(
        self, make_channels: Callable[..., UserNotificationChannel]
    ) -> None:
        channel = make_channels()

        run()

        assert UserNotificationChannel.objects.get().updated_at == channel.updated_at

    def test_all_batches_are_rotated_and_progress_is_printed(
        self, make_channels: Callable[..., UserNotificationChannel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rotate_notification_keys, "BATCH_CHANNELS", 2)
        make_channels(5)

        output = run()

        assert [line for line in output.splitlines() if "processed" in line] == [
            f"{count} of 5 processed" for count in (2, 4, 5)
        ]
        assert "encrypted again with the newest key: 10" in output
        assert run(verbosity=0) == ""


class TestUnreadable:
    def test_channels_without_a_matching_key_are_listed_and_others_are_rotated(
        self, make_channels: Callable[..., UserNotificationChannel], change: Change
    ) -> None:
        broken, corrupt, good = make_channels(), make_channels(), make_channels()
        change(ENCRYPTION_KEYS=[OTHER])
        UserNotificationChannel.objects.filter(pk=broken.pk).update(bearer_token=Secret.of(TOKEN))
        UserNotificationChannel.objects.filter(pk=corrupt.pk).update(webhook_url=Secret("not-even-ciphertext"))
        change(ENCRYPTION_KEYS=[NEW, OLD])

        with pytest.raises(CommandError) as error_info:
            run()

        assert (
            str(error_info.value)
            == f"2 channels have a secret that no configured key decrypts: {broken.pk}, {corrupt.pk}."
        )
        assert error_info.value.returncode == 1
        change(ENCRYPTION_KEYS=[NEW])
        good.refresh_from_db()
        broken.refresh_from_db()
        assert (good.webhook_url.reveal(), broken.webhook_url.reveal()) == (URL, URL)
        with pytest.raises(SecretUnreadable):
            broken.bearer_token.reveal()

    def test_dry_run_lists_channels_without_a_matching_key(
        self, make_channels: Callable[..., UserNotificationChannel], change: Change
    ) -> None:
        channel = make_channels()
        change(ENCRYPTION_KEYS=[NEW])

        with pytest.raises(CommandError, match=f"1 channel has a secret .* decrypts: {channel.pk}."):
            run("--dry-run")

    def test_invalid_key_setting_is_reported_and_changes_nothing(
        self, make_channels: Callable[..., UserNotificationChannel], change: Change, subtests: pytest.Subtests
    ) -> None:
        make_channels()
        before = stored_secrets()

        cases: list[list[str]] = [[], ["no key"], [NEW, "no key"]]
        for keys in cases:
            with subtests.test(keys=keys):
                change(ENCRYPTION_KEYS=keys)

                with pytest.raises(CommandError, match="ENCRYPTION_KEYS"):
                    run()

                assert stored_secrets() == before

    def test_database_failure_raises_command_error_without_the_error_text(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise OperationalError(f"Key (webhook_url)=({URL})")

        monkeypatch.setattr(rotate_notification_keys, "_batches", fail)

        with pytest.raises(CommandError, match="The database failed: OperationalError") as error_info:
            run()

        assert "canary" not in str(error_info.value)


class TestConcurrentEdit:
    def test_form_opened_before_the_rotation_saves_with_the_new_key(
        self, make_channels: Callable[..., UserNotificationChannel], admin_client: Client, change: Change,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        channel = make_channels()
        real = UserNotificationChannel.save

        def rotate_then_save(self: UserNotificationChannel, *args: Any, **kwargs: Any) -> None:
            run()
            real(self, *args, **kwargs)

        monkeypatch.setattr(UserNotificationChannel, "save", rotate_then_save)

        response = admin_client.post(
            f"/admin/notifications/usernotificationchannel/{channel.pk}/change/",
            {"auth_type": "bearer", "new_bearer_token": "canary-entered"},
        )

        assert response.status_code == 302
        channel.refresh_from_db()
        change(ENCRYPTION_KEYS=[NEW])
        assert not channel.enabled
        assert (channel.webhook_url.reveal(), channel.bearer_token.reveal()) == (URL, "canary-entered")
