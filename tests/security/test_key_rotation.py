"""Fault 34: keys are rotated while notifications are sent. No ciphertext is sent and no notification is lost."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction

from dev.waiting import wait_until
from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.security.secrets import Secret
from notifications.service import NotificationService
from notifications.states import Status
from notifications.testing.sandbox.server import Sandbox
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
USERS = 40
Change = Callable[..., None]


@pytest.fixture
def sandbox(change: Change) -> Iterator[Sandbox]:
    """Run the receiver, and configure the old key for encryption."""
    with Sandbox() as sandbox:
        change(SANDBOX_ORIGINS=[sandbox.origin], ENCRYPTION_KEYS=[OLD], SEND_SLOTS=4)
        yield sandbox


def add_channels(sandbox: Sandbox, count: int) -> dict[int, str]:
    """Store channels and return the webhook key by user ID. The token is the reversed key."""
    keys = {}
    for number in range(count):
        user = User.objects.create(username=f"user{number}")
        keys[user.pk] = key = f"key{number:013d}"
        url = f"{sandbox.origin}/flow/api/trigger-webhook/{key}"
        UserNotificationChannel.objects.create(user=user, webhook_url=url, auth_type="bearer", bearer_token=key[::-1])
    return keys


def request(users: Any, per_user: int = 1) -> None:
    """Store requests that are due immediately."""
    NotificationService().accept(
        [payload(user_id=user, dedupe_key=f"{user}:{n}") for n in range(per_user) for user in users]
    )


def drain() -> None:
    """Deliver due records, then close the thread's database connection."""
    try:
        Engine().deliver_due()
    finally:
        connection.close()


def rotate(*args: str) -> str:
    out = io.StringIO()
    call_command("rotate_notification_keys", *args, stdout=out)
    return out.getvalue()


def assert_each_record_was_sent_once_to_its_channel(sandbox: Sandbox, keys: dict[int, str]) -> None:
    deliveries = sandbox.deliveries()
    owners = dict(NotificationRecord.objects.values_list("pk", "user_id"))
    assert Counter(delivery.notification_id for delivery in deliveries) == dict.fromkeys(owners, 1)
    assert [delivery for delivery in deliveries if delivery.key != keys[owners[delivery.notification_id or 0]]] == []
    assert [
        delivery for delivery in deliveries if delivery.headers["Authorization"] != f"Bearer {delivery.key[::-1]}"
    ] == []
    assert set(NotificationRecord.objects.values_list("status", flat=True)) == {Status.SENT}


def assert_readable(keys: dict[int, str]) -> None:
    stored = {channel.user_id: channel for channel in UserNotificationChannel.objects.all()}
    assert {user: channel.webhook_url.reveal().rpartition("/")[2] for user, channel in stored.items()} == keys
    assert {user: channel.bearer_token.reveal()[::-1] for user, channel in stored.items()} == keys


def test_fault_34_key_rotation_repeated_while_two_drains_send(sandbox: Sandbox, change: Change) -> None:
    keys = add_channels(sandbox, USERS)
    for key in keys.values():
        sandbox.script(key, "slow:0.05")
    request(keys, per_user=8)
    outputs: list[str] = []

    with ThreadPoolExecutor(2) as pool:
        drains = [pool.submit(drain) for _ in range(2)]
        sandbox.wait_for(1)
        for newest, oldest in cycle([(NEW, OLD), (OLD, NEW)]):
            if all(future.done() for future in drains):
                break
            change(ENCRYPTION_KEYS=[newest, oldest])
            outputs.append(rotate())
    for future in drains:
        future.result()

    assert len(outputs) >= 2
    assert all(f"encrypted again with the newest key: {2 * USERS}\n" in output for output in outputs)
    change(ENCRYPTION_KEYS=[NEW if len(outputs) % 2 else OLD])
    assert_each_record_was_sent_once_to_its_channel(sandbox, keys)
    assert_readable(keys)


def test_fault_34_key_rotation_completes_and_old_key_is_removed_during_sends(sandbox: Sandbox, change: Change) -> None:
    keys = add_channels(sandbox, 8)
    for key in keys.values():
        sandbox.script(key, "hold")
    request(keys)

    with ThreadPoolExecutor(1) as pool:
        draining = pool.submit(drain)
        sandbox.wait_for(4)
        change(ENCRYPTION_KEYS=[NEW, OLD])
        rotate()
        assert "would be encrypted again: 0\n" in rotate("--dry-run")
        change(ENCRYPTION_KEYS=[NEW])
        for count in (4, 8):
            sandbox.wait_for(count)
            sandbox.release()
        draining.result()

    assert_each_record_was_sent_once_to_its_channel(sandbox, keys)
    assert_readable(keys)


def test_fault_34_key_rotation_with_old_key_removed_too_early_recovers(sandbox: Sandbox, change: Change) -> None:
    keys = add_channels(sandbox, 5)
    request(keys)
    change(ENCRYPTION_KEYS=[NEW])

    drain()

    assert sandbox.connections == 0
    rows = NotificationRecord.objects.values_list("status", "last_error_code", "attempt_count")
    assert set(rows) == {("failed", "provider_config", 1)}

    change(ENCRYPTION_KEYS=[NEW, OLD])
    NotificationRecord.objects.update(next_attempt_at="2026-01-01T00:00Z")
    drain()

    assert_each_record_was_sent_once_to_its_channel(sandbox, keys)


def test_fault_34_key_rotation_records_dead_for_lack_of_a_key_can_be_replayed(sandbox: Sandbox, change: Change) -> None:
    change(MAX_ATTEMPTS=1)
    keys = add_channels(sandbox, 3)
    request(keys)
    change(ENCRYPTION_KEYS=[NEW])
    drain()
    assert set(NotificationRecord.objects.values_list("status", flat=True)) == {Status.DEAD}
    change(ENCRYPTION_KEYS=[NEW, OLD])

    arguments = ("--code", "provider_config", "--status", "dead", "--reason", "the key is back")
    call_command("replay_notifications", *arguments, stdout=io.StringIO())
    drain()

    assert_each_record_was_sent_once_to_its_channel(sandbox, keys)


class TestEdits:
    """A user's edit during a rotation is always kept."""

    EDITED_URL = "https://www.feishu.cn/flow/api/trigger-webhook/entered-meanwhile"

    @pytest.fixture
    def channel(self, sandbox: Sandbox, change: Change) -> UserNotificationChannel:
        add_channels(sandbox, 1)
        change(ENCRYPTION_KEYS=[NEW, OLD])
        return UserNotificationChannel.objects.get()

    def edit_channel(self, channel: UserNotificationChannel) -> None:
        UserNotificationChannel.objects.filter(pk=channel.pk).update(webhook_url=self.EDITED_URL)

    def assert_edit_was_kept(self, channel: UserNotificationChannel, output: str, change: Change) -> None:
        assert "changed by another process meanwhile; run the command again: 1\n" in output
        assert "encrypted again with the newest key: 1\n" in output
        assert "encrypted with the newest key already: 2\n" in rotate()
        change(ENCRYPTION_KEYS=[NEW])
        channel.refresh_from_db()
        assert channel.webhook_url.reveal() == self.EDITED_URL
        assert channel.bearer_token.reveal() == "key0000000000000"[::-1]

    def test_fault_34_key_rotation_keeps_an_edit_made_between_read_and_write(
        self, channel: UserNotificationChannel, change: Change, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, edits = Secret.rotated, []

        def edit_first(secret: Secret) -> Secret:
            if secret == channel.webhook_url:
                self.edit_channel(channel)
                edits.append(True)
            return real(secret)

        monkeypatch.setattr(Secret, "rotated", edit_first)

        output = rotate()

        assert edits == [True]
        self.assert_edit_was_kept(channel, output, change)

    def test_fault_34_key_rotation_keeps_an_edit_committed_while_rotation_waits_for_the_lock(
        self, channel: UserNotificationChannel, change: Change
    ) -> None:
        def rotate_elsewhere() -> str:
            try:
                return rotate()
            finally:
                connection.close()

        def rotation_waits() -> bool:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
                return cursor.fetchone() is not None

        with ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                self.edit_channel(channel)
                rotating = pool.submit(rotate_elsewhere)
                wait_until(rotation_waits, "the rotation waits for the user's transaction")
            output = rotating.result()

        self.assert_edit_was_kept(channel, output, change)
