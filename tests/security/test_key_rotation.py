"""Fault 34: keys change while notifications are sent; no ciphertext leaves the house and nothing is lost."""

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
    """The receiver; what is stored is stored under the old key."""
    with Sandbox() as sandbox:
        change(SANDBOX_ORIGINS=[sandbox.origin], ENCRYPTION_KEYS=[OLD], SEND_SLOTS=4)
        yield sandbox


def add_channels(sandbox: Sandbox, count: int) -> dict[int, str]:
    """Store channels and return the key of each user's webhook; the token is the key spelt backwards."""
    keys = {}
    for number in range(count):
        user = User.objects.create(username=f"user{number}")
        keys[user.pk] = key = f"key{number:013d}"
        url = f"{sandbox.origin}/flow/api/trigger-webhook/{key}"
        UserNotificationChannel.objects.create(user=user, webhook_url=url, auth_type="bearer", bearer_token=key[::-1])
    return keys


def request(users: Any, each: int = 1) -> None:
    """Store requests, each due at once."""
    NotificationService().accept(
        [payload(user_id=user, dedupe_key=f"{user}:{n}") for n in range(each) for user in users]
    )


def drain() -> None:
    """Deliver what is due, on a connection of this thread's own."""
    try:
        Engine().deliver_due()
    finally:
        connection.close()


def rotate(*args: str) -> str:
    out = io.StringIO()
    call_command("rotate_notification_keys", *args, stdout=out)
    return out.getvalue()


def assert_each_was_sent_once_to_its_own_key(sandbox: Sandbox, keys: dict[int, str]) -> None:
    deliveries = sandbox.deliveries()
    owners = dict(NotificationRecord.objects.values_list("pk", "user_id"))
    assert Counter(one.notification_id for one in deliveries) == dict.fromkeys(owners, 1)
    assert [one for one in deliveries if one.key != keys[owners[one.notification_id or 0]]] == []
    assert [one for one in deliveries if one.headers["Authorization"] != f"Bearer {one.key[::-1]}"] == []
    assert set(NotificationRecord.objects.values_list("status", flat=True)) == {Status.SENT}


def assert_readable(keys: dict[int, str]) -> None:
    stored = {one.user_id: one for one in UserNotificationChannel.objects.all()}
    assert {user: one.webhook_url.reveal().rpartition("/")[2] for user, one in stored.items()} == keys
    assert {user: one.bearer_token.reveal()[::-1] for user, one in stored.items()} == keys


def test_fault_34_key_rotation_again_and_again_while_two_drains_send(sandbox: Sandbox, change: Change) -> None:
    keys = add_channels(sandbox, USERS)
    for key in keys.values():
        sandbox.script(key, "slow:0.05")
    request(keys, each=8)
    passes: list[str] = []

    with ThreadPoolExecutor(2) as pool:
        drains = [pool.submit(drain) for _ in range(2)]
        sandbox.wait_for(1)
        for newest, oldest in cycle([(NEW, OLD), (OLD, NEW)]):
            if all(one.done() for one in drains):
                break
            change(ENCRYPTION_KEYS=[newest, oldest])
            passes.append(rotate())
    for one in drains:
        one.result()

    assert len(passes) >= 2
    assert all(f"encrypted again with the newest key: {2 * USERS}\n" in said for said in passes)
    change(ENCRYPTION_KEYS=[NEW if len(passes) % 2 else OLD])
    assert_each_was_sent_once_to_its_own_key(sandbox, keys)
    assert_readable(keys)


def test_fault_34_key_rotation_finished_and_old_key_gone_with_sends_in_the_air(
    sandbox: Sandbox, change: Change
) -> None:
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
        for done in (4, 8):
            sandbox.wait_for(done)
            sandbox.release()
        draining.result()

    assert_each_was_sent_once_to_its_own_key(sandbox, keys)
    assert_readable(keys)


def test_fault_34_key_rotation_old_key_removed_too_soon(sandbox: Sandbox, change: Change) -> None:
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

    assert_each_was_sent_once_to_its_own_key(sandbox, keys)


def test_fault_34_key_rotation_what_ended_dead_without_its_key_is_replayed(sandbox: Sandbox, change: Change) -> None:
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

    assert_each_was_sent_once_to_its_own_key(sandbox, keys)


class TestEdits:
    """A user's own change always wins, wherever in the rotation it falls."""

    ENTERED = "https://www.feishu.cn/flow/api/trigger-webhook/entered-meanwhile"

    @pytest.fixture
    def channel(self, sandbox: Sandbox, change: Change) -> UserNotificationChannel:
        add_channels(sandbox, 1)
        change(ENCRYPTION_KEYS=[NEW, OLD])
        return UserNotificationChannel.objects.get()

    def enter(self, channel: UserNotificationChannel) -> None:
        UserNotificationChannel.objects.filter(pk=channel.pk).update(webhook_url=self.ENTERED)

    def assert_won(self, channel: UserNotificationChannel, said: str, change: Change) -> None:
        assert "changed by another process meanwhile; run the command again: 1\n" in said
        assert "encrypted again with the newest key: 1\n" in said
        assert "encrypted with the newest key already: 2\n" in rotate()
        change(ENCRYPTION_KEYS=[NEW])
        channel.refresh_from_db()
        assert channel.webhook_url.reveal() == self.ENTERED
        assert channel.bearer_token.reveal() == "key0000000000000"[::-1]

    def test_fault_34_key_rotation_edit_between_its_look_and_its_write(
        self, channel: UserNotificationChannel, change: Change, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, entered = Secret.rotated, []

        def edit_first(secret: Secret) -> Secret:
            if secret == channel.webhook_url:
                self.enter(channel)
                entered.append(True)
            return real(secret)

        monkeypatch.setattr(Secret, "rotated", edit_first)

        said = rotate()

        assert entered == [True]
        self.assert_won(channel, said, change)

    def test_fault_34_key_rotation_edit_that_commits_while_it_waits_to_write(
        self, channel: UserNotificationChannel, change: Change
    ) -> None:
        def rotate_elsewhere() -> str:
            try:
                return rotate()
            finally:
                connection.close()

        def waits() -> bool:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
                return cursor.fetchone() is not None

        with ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                self.enter(channel)
                rotating = pool.submit(rotate_elsewhere)
                wait_until(waits, "the rotation waits for the user's transaction")
            said = rotating.result()

        self.assert_won(channel, said, change)
