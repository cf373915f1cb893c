"""The testing kit: assertions with helpful failures, deliveries on demand, and isolation from the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

from notifications.api import request_notification
from notifications.conf import service_options
from notifications.models import RejectedRequest
from notifications.providers.base import SendResult
from notifications.providers.memory import MemoryProvider
from notifications.states import Outcome
from notifications.testing.assertions import assert_not_notified, assert_notified
from notifications.testing.delivery import deliver_notifications
from notifications.testing.isolation import using_memory, using_sandbox
from notifications.testing.sandbox.server import Sandbox
from tests.support.payloads import payload

KEY = "aliceskey1"


def failure_text(assertion: Callable[..., object], *args: object, **fields: object) -> str:
    """Return the text of the assertion's failure."""
    with pytest.raises(AssertionError) as error:
        assertion(*args, **fields)
    return str(error.value)


@pytest.mark.django_db
class TestAssertNotified:
    def test_returns_the_requested_record(self) -> None:
        accepted = request_notification(payload())

        assert assert_notified(42).pk == accepted.record_id
        assert assert_notified(42, dedupe_key=payload()["dedupe_key"], status="pending").pk == accepted.record_id

    def test_accepts_a_user(self, make_user: Callable[..., User]) -> None:
        alice = make_user("alice")
        request_notification(payload(user_id=alice.pk))

        assert_notified(alice)
        assert f"user {alice.pk} (alice) with trace_id='other'" in failure_text(
            assert_notified, alice, trace_id="other"
        )

    def test_a_failure_lists_what_was_requested(self) -> None:
        request_notification(payload(dedupe_key="far", summary_text="far", target_url="/far"))
        request_notification(payload(dedupe_key="near", summary_text="close by", target_url="/near"))
        request_notification(payload(dedupe_key="theirs", user_id=7))

        text = failure_text(assert_notified, 42, dedupe_key="near", summary_text="closer")

        first, same_user_title, near, far, others_title, other = text.splitlines()
        assert first == "no notification was requested for user 42 with dedupe_key='near', summary_text='closer'"
        assert (same_user_title, others_title) == ("for this user:", "for other users:")
        assert "summary_text=close by, dedupe_key=near" in near  # the most similar first, with the fields that differ
        assert "dedupe_key=far, summary_text=far" in far
        assert "user 7: " in other

    def test_a_failure_says_that_nothing_was_requested(self) -> None:
        assert failure_text(assert_notified, 42).endswith("no notification was requested")

    def test_a_failure_lists_rejected_requests(self) -> None:
        RejectedRequest.objects.create(source="a task", payload="{}", errors=[{"field": "user_id", "reason": "?"}])

        assert "rejected requests:\n" in failure_text(assert_notified, 42)
        assert "user_id" in failure_text(assert_notified, 42)

    def test_a_long_list_is_truncated(self) -> None:
        for number in range(13):
            request_notification(payload(dedupe_key=str(number)))

        assert failure_text(assert_notified, 42, trace_id="no").endswith("  and 3 more")

    def test_an_unknown_field_raises_a_type_error(self) -> None:
        with pytest.raises(TypeError, match=r"notifications have no sumary_text; they have .*summary_text"):
            assert_notified(42, sumary_text="x")


@pytest.mark.django_db
class TestAssertNotNotified:
    def test_passes_if_nothing_was_requested_for_the_user(self) -> None:
        request_notification(payload(user_id=7))

        assert_not_notified(42)
        assert_not_notified(7, trigger_type="other")

    def test_a_failure_lists_the_matching_records(self) -> None:
        request_notification(payload(dedupe_key="unwanted"))

        text = failure_text(assert_not_notified, 42)

        assert text.startswith("1 requested for user 42:\n")
        assert "dedupe_key=unwanted" in text

    def test_an_unknown_field_does_not_pass(self) -> None:
        with pytest.raises(TypeError, match="no sumary_text"):
            assert_not_notified(42, sumary_text="x")


class TestDeliverInATestTransaction(TestCase):
    """Django's TestCase, whose transaction is never committed."""

    def test_delivers_requested_notifications(self) -> None:
        request_notification(payload())

        with using_memory() as provider:
            counts = deliver_notifications()

        assert (counts.scanned, counts.sent, counts.has_more) == (1, 1, False)
        assert [request.user_id for request in provider.requests] == [42]
        assert_notified(42, status="sent", attempt_count=1)

    def test_a_later_time_makes_retries_and_scheduled_notifications_due(self) -> None:
        request_notification(payload(), deliver_at=timezone.now() + timedelta(hours=1))

        with using_memory() as provider:
            provider.script(SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx"))
            assert deliver_notifications().scanned == 0
            assert deliver_notifications(at=timezone.now() + timedelta(hours=2)).failed == 1
            assert deliver_notifications(at=timezone.now() + timedelta(hours=3)).sent == 1

        assert_notified(42, status="sent", attempt_count=2)

    def test_raises_inside_an_atomic_block(self) -> None:
        with transaction.atomic():
            request_notification(payload())
            with pytest.raises(RuntimeError, match="Call it after the block"):
                deliver_notifications()

        with using_memory():
            assert deliver_notifications().sent == 1

    def test_a_time_without_a_zone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at must have a time zone"):
            deliver_notifications(at=datetime(2026, 5, 1))  # noqa: DTZ001  the point


class TestDeliverWithCommits(TransactionTestCase):
    def test_delivers_committed_notifications(self) -> None:
        with transaction.atomic():
            request_notification(payload())
            with pytest.raises(RuntimeError, match="Call it after the block"):
                deliver_notifications()

        with using_memory():
            assert deliver_notifications().sent == 1


@pytest.mark.django_db
class TestIsolation:
    def test_the_sandbox_receives_messages_for_feishu(self, make_user: Callable[..., User]) -> None:
        with using_sandbox() as sandbox:
            alice = make_user("alice", sandbox.webhook_url(KEY))
            sandbox.script(KEY, "code:11246", "ok")
            request_notification(payload(user_id=alice.pk))
            deliver_notifications()

            assert_notified(alice, status="dead", last_error_code="payload_invalid")
            [arrived] = sandbox.deliveries(KEY)
            assert arrived.body["message"]["summary"].startswith(payload()["summary_text"])

    def test_the_settings_are_restored_afterwards(self) -> None:
        before = service_options()

        with using_sandbox(), using_memory():
            assert service_options() != before

        assert service_options() == before

    def test_redis_is_not_used(self) -> None:
        assert service_options().redis_url

        with using_memory():
            assert service_options().redis_url == ""

    def test_every_channel_uses_the_memory_provider(self) -> None:
        with using_memory("another"):
            assert set(service_options().providers) >= {"feishu", "another"}
            assert {config.backend for config in service_options().providers.values()} == {
                "notifications.providers.memory.MemoryProvider"
            }  # fmt: skip


@pytest.mark.django_db
class TestFixtures:
    def test_memory(self, notifications_memory: MemoryProvider) -> None:
        request_notification(payload())
        deliver_notifications()

        assert [request.user_id for request in notifications_memory.requests] == [42]

    def test_sandbox(self, notifications_sandbox: Sandbox, make_user: Callable[..., User]) -> None:
        alice = make_user("alice", notifications_sandbox.webhook_url(KEY))
        request_notification(payload(user_id=alice.pk))
        deliver_notifications()

        assert [arrived.accepted for arrived in notifications_sandbox.deliveries(KEY)] == [True]


@pytest.mark.processes
def test_importing_requires_neither_pytest_nor_a_configured_django() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None; import notifications.testing; print('django.apps' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "False\n")
