"""rotate_notification_keys: everything under the newest key, nothing lost, nothing shown."""

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
def old(change: Change) -> Callable[..., UserNotificationChannel]:
    """Return a function that stores channels under the old key; from then on the new key is the first."""

    def make(count: int = 1, token: str = TOKEN) -> UserNotificationChannel:
        change(ENCRYPTION_KEYS=[OLD])
        for _ in range(count):
            user = User.objects.create(username=f"user{User.objects.count()}")
            channel = UserNotificationChannel.objects.create(user=user, webhook_url=URL, bearer_token=token)
        change(ENCRYPTION_KEYS=[NEW, OLD])
        return channel

    return make


def run(*args: str, **options: Any) -> str:
    """Return what the command said when it ended well."""
    out = StringIO()
    call_command("rotate_notification_keys", *args, stdout=out, **options)
    assert "canary" not in out.getvalue()
    return out.getvalue()


def stored() -> list[tuple[Secret, Secret]]:
    return [(one.webhook_url, one.bearer_token) for one in UserNotificationChannel.objects.order_by("pk")]


class TestRotate:
    def test_every_secret_can_be_read_without_the_old_key(
        self, old: Callable[..., UserNotificationChannel], change: Change
    ) -> None:
        old(3)

        said = run()

        change(ENCRYPTION_KEYS=[NEW])
        assert [(url.reveal(), token.reveal()) for url, token in stored()] == [(URL, TOKEN)] * 3
        assert "3 channels were checked." in said
        assert "encrypted again with the newest key: 6" in said

    def test_running_it_twice_changes_nothing(self, old: Callable[..., UserNotificationChannel]) -> None:
        old(2)
        run()
        before = stored()

        said = run()

        assert stored() == before
        assert "encrypted with the newest key already: 4" in said
        assert "encrypted again with the newest key: 0" in said

    def test_a_dry_run_counts_and_changes_nothing(self, old: Callable[..., UserNotificationChannel]) -> None:
        old(2)
        before = stored()

        said = run("--dry-run")

        assert stored() == before
        assert "encrypted with an older key, would be encrypted again: 4" in said

    def test_blanks_stay_blank_and_are_not_counted(self, old: Callable[..., UserNotificationChannel]) -> None:
        old(token="")

        said = run()

        assert not stored()[0][1]
        assert "encrypted again with the newest key: 1" in said

    def test_nothing_but_the_secrets_is_written(self, old: Callable[..., UserNotificationChannel]) -> None:
        channel = old()

        run()

        assert UserNotificationChannel.objects.get().updated_at == channel.updated_at

    def test_all_batches_are_gone_through_and_progress_is_told(
        self, old: Callable[..., UserNotificationChannel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rotate_notification_keys, "BATCH_CHANNELS", 2)
        old(5)

        said = run()

        assert [line for line in said.splitlines() if "processed" in line] == [
            f"{done} of 5 processed" for done in (2, 4, 5)
        ]
        assert "encrypted again with the newest key: 10" in said
        assert run(verbosity=0) == ""


class TestUnreadable:
    def test_those_no_key_reads_are_named_by_id_and_the_others_done(
        self, old: Callable[..., UserNotificationChannel], change: Change
    ) -> None:
        broken, spoilt, good = old(), old(), old()
        change(ENCRYPTION_KEYS=[OTHER])
        UserNotificationChannel.objects.filter(pk=broken.pk).update(bearer_token=Secret.of(TOKEN))
        UserNotificationChannel.objects.filter(pk=spoilt.pk).update(webhook_url=Secret("not-even-ciphertext"))
        change(ENCRYPTION_KEYS=[NEW, OLD])

        with pytest.raises(CommandError) as caught:
            run()

        assert (
            str(caught.value) == f"2 channels have a secret that no configured key decrypts: {broken.pk}, {spoilt.pk}."
        )
        assert caught.value.returncode == 1
        change(ENCRYPTION_KEYS=[NEW])
        good.refresh_from_db()
        broken.refresh_from_db()
        assert (good.webhook_url.reveal(), broken.webhook_url.reveal()) == (URL, URL)
        with pytest.raises(SecretUnreadable):
            broken.bearer_token.reveal()

    def test_a_dry_run_finds_them_too(self, old: Callable[..., UserNotificationChannel], change: Change) -> None:
        channel = old()
        change(ENCRYPTION_KEYS=[NEW])

        with pytest.raises(CommandError, match=f"1 channel has a secret .* decrypts: {channel.pk}."):
            run("--dry-run")

    @pytest.mark.parametrize("keys", [[], ["no key"], [NEW, "no key"]])
    def test_keys_that_are_none_are_named_before_anything_is_judged(
        self, old: Callable[..., UserNotificationChannel], change: Change, keys: list[str]
    ) -> None:
        old()
        before = stored()
        change(ENCRYPTION_KEYS=keys)

        with pytest.raises(CommandError, match="ENCRYPTION_KEYS"):
            run()

        assert stored() == before

    def test_a_database_that_fails_is_an_error_without_its_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise OperationalError(f"Key (webhook_url)=({URL})")

        monkeypatch.setattr(rotate_notification_keys, "_batches", fail)

        with pytest.raises(CommandError, match="The database failed: OperationalError") as caught:
            run()

        assert "canary" not in str(caught.value)


class TestBesideUsers:
    def test_a_form_opened_before_the_rotation_does_not_bring_the_old_key_back(
        self, old: Callable[..., UserNotificationChannel], admin_client: Client, change: Change,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        channel = old()
        real = UserNotificationChannel.save

        def rotate_then_save(self: UserNotificationChannel, *args: Any, **kwargs: Any) -> None:
            run()
            real(self, *args, **kwargs)

        monkeypatch.setattr(UserNotificationChannel, "save", rotate_then_save)

        answer = admin_client.post(
            f"/admin/notifications/usernotificationchannel/{channel.pk}/change/",
            {"auth_type": "bearer", "new_bearer_token": "canary-entered"},
        )

        assert answer.status_code == 302
        channel.refresh_from_db()
        change(ENCRYPTION_KEYS=[NEW])
        assert not channel.enabled
        assert (channel.webhook_url.reveal(), channel.bearer_token.reveal()) == (URL, "canary-entered")
