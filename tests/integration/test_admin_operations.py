"""Replay, send now and cancel in the admin: permissions, confirmation and results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from notifications.admin import record_actions
from notifications.admin.record_operations import OPERATIONS
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.states import ErrorCode, Status
from tests.support.factories import LIST, make_attempt, make_record

pytestmark = pytest.mark.django_db


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Collects nudges instead of sending them to a broker."""
    given: list[None] = []
    monkeypatch.setattr("notifications.broker.nudge.nudge", lambda: given.append(None))
    return given


@pytest.fixture
def staff(make_user: Callable[..., User]) -> Callable[..., Client]:
    """Return a function that returns a client with the given permissions on records."""

    def browse(*names: str) -> Client:
        user = make_user("operator", is_staff=True)
        codes = [f"{name}_notificationrecord" for name in names]
        user.user_permissions.set(Permission.objects.filter(codename__in=codes))
        client = Client()
        client.force_login(user)
        return client

    return browse


def post(client: Client, action: str, *records: NotificationRecord, query: str = "", **data: Any) -> Any:
    """Post an action as the list and the confirmation page do."""
    chosen = [record.pk for record in records]
    return client.post(LIST + query, {"action": action, "_selected_action": chosen, **data})


def confirm(client: Client, action: str, *records: NotificationRecord, **data: Any) -> list[str]:
    """Post both steps and return the messages."""
    asked = post(client, action, *records, **data)
    assert asked.status_code == 200
    answer = {"confirm": "yes", "newest": asked.context["newest"], "reason": "endpoint fixed", **data}
    done = post(client, action, *records, **answer)
    assert done.status_code == 302, done.context["form"].errors
    return [str(message) for message in client.get(done["Location"]).context["messages"]]


def statuses() -> list[str]:
    return list(NotificationRecord.objects.order_by("pk").values_list("status", flat=True))


class TestPermissions:
    def test_action_is_not_offered_without_permission(self, staff: Callable[..., Client]) -> None:
        record = make_record()
        client = staff("view")

        for url in (LIST, f"{LIST}{record.pk}/change/"):
            html = client.get(url).content.decode()
            assert 'value="replay"' not in html
            assert 'value="cancel"' not in html

    def test_permission_offers_its_own_action_only(self, staff: Callable[..., Client]) -> None:
        make_record()
        html = staff("view", "replay").get(LIST).content.decode()

        assert '<option value="replay">' in html
        assert '<option value="cancel">' not in html

    @pytest.mark.parametrize(("allowed", "asked"), [((), "replay"), (("replay",), "cancel"), (("cancel",), "replay")])
    def test_post_without_permission_gets_403(
        self, staff: Callable[..., Client], allowed: tuple[str, ...], asked: str
    ) -> None:
        record = make_record("dead" if asked == "replay" else "pending")
        client = staff("view", *allowed)

        first = post(client, asked, record)
        second = post(client, asked, record, confirm="yes", reason="x", newest=record.pk)

        assert (first.status_code, second.status_code) == (403, 403)
        assert statuses() == [record.status]

    def test_replay_permission_alone_opens_no_page(self, staff: Callable[..., Client]) -> None:
        record = make_record()
        client = staff("replay", "cancel")

        assert client.get(LIST).status_code == 403
        assert post(client, "replay", record, confirm="yes", reason="x", newest=record.pk).status_code == 403
        assert statuses() == ["dead"]

    def test_anonymous_user_is_redirected_to_login(self, client: Client) -> None:
        record = make_record()

        response = post(client, "replay", record, confirm="yes", reason="x", newest=record.pk)

        assert response["Location"].startswith("/admin/login/")
        assert statuses() == ["dead"]

    def test_post_without_csrf_token_is_refused(self, staff: Callable[..., Client]) -> None:
        record = make_record()
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = staff("view", "replay").cookies

        assert post(strict, "replay", record, confirm="yes", reason="x", newest=record.pk).status_code == 403
        assert statuses() == ["dead"]


class TestConfirmation:
    def test_get_runs_no_operation(self, admin_client: Client) -> None:
        record = make_record()
        query: dict[str, Any] = {
            "action": "replay",
            "_selected_action": record.pk,
            "confirm": "yes",
            "reason": "x",
            "newest": record.pk,
        }

        for url in (LIST, f"{LIST}{record.pk}/change/"):
            admin_client.get(url, query)

        assert statuses() == ["dead"]

    def test_first_post_shows_confirmation_and_changes_nothing(self, admin_client: Client) -> None:
        record = make_record()

        response = post(admin_client, "replay", record, index=0)

        assert "1 notification is selected." in response.content.decode()
        assert statuses() == ["dead"]

    def test_confirmation_shows_changed_and_unchanged_counts_with_reasons(self, admin_client: Client) -> None:
        records = [make_record(status) for status in Status.values]
        called_off = make_record("skipped", last_error_code=ErrorCode.CANCELLED)

        response = post(admin_client, "replay", *records, called_off)

        facts = {row["status"]: (row["selected"], row["changed"], row["unchanged"]) for row in response.context["rows"]}
        assert facts == {
            "pending": (1, 0, 1),
            "sending": (1, 0, 1),
            "sent": (1, 0, 1),
            "failed": (1, 0, 1),
            "dead": (1, 1, 0),
            "skipped": (2, 1, 1),
        }
        assert all(bool(row["reason"]) == bool(row["unchanged"]) for row in response.context["rows"])
        html = response.content.decode()
        for text in ("7 notifications are selected.", "2 will be sent again.", "2 more with force."):
            assert text in html

    def test_cancel_selects_unsent_records_and_offers_no_force(self, admin_client: Client) -> None:
        records = [make_record(status) for status in Status.values]

        response = post(admin_client, "cancel", *records)

        assert {row["status"]: row["changed"] for row in response.context["rows"] if row["changed"]} == {
            "pending": 1,
            "failed": 1,
        }
        assert all(bool(row["reason"]) == bool(row["unchanged"]) for row in response.context["rows"])
        assert 'name="force"' not in response.content.decode()

    def test_invalid_reason_shows_the_confirmation_page_again(self, admin_client: Client) -> None:
        record = make_record()
        for reason in ["", "   ", "x" * 501, "a\x00b"]:
            response = post(admin_client, "replay", record, confirm="yes", reason=reason, newest=record.pk)

            assert response.status_code == 200, reason
            assert response.context["form"].errors["reason"], reason
            assert statuses() == ["dead"], reason

    def test_confirmation_has_no_button_if_nothing_can_be_changed(self, admin_client: Client) -> None:
        response = post(admin_client, "replay", make_record("pending"))

        assert 'name="confirm"' not in response.content.decode()

    def test_invalid_id_is_a_bad_request(self, admin_client: Client) -> None:
        response = admin_client.post(LIST, {"action": "replay", "_selected_action": "1 OR 1=1"})

        assert response.status_code == 400

    def test_too_many_records_are_refused(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(record_actions, "MAX_RECORDS_PER_OPERATION", 2)
        records = [make_record() for _ in range(3)]

        asked = post(admin_client, "replay", *records)
        acted = post(admin_client, "replay", *records, confirm="yes", reason="x", newest=records[-1].pk)

        assert "Narrow the list" in asked.content.decode()
        assert 'name="confirm"' not in asked.content.decode()
        assert acted.context["form"].non_field_errors()
        assert set(statuses()) == {"dead"}


class TestReplaying:
    def test_replay_keeps_attempts_and_resets_the_count(self, admin_client: Client, nudges: list[None]) -> None:
        record = make_record(attempt_count=5, max_attempts=5)
        make_attempt(record)

        messages = confirm(admin_client, "replay", record)

        record.refresh_from_db()
        assert (record.status, record.attempt_count, record.max_attempts, record.round) == ("pending", 0, 5, 1)
        assert record.attempts.count() == 1
        assert messages == ["1 notification is sent again."]

    def test_replay_nudges_a_worker(
        self, admin_client: Client, nudges: list[None], django_capture_on_commit_callbacks: Any
    ) -> None:
        record = make_record()

        with django_capture_on_commit_callbacks(execute=True):
            confirm(admin_client, "replay", record)

        assert len(nudges) == 1

    def test_replay_succeeds_without_the_broker(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
    ) -> None:
        def away() -> None:
            raise ConnectionError

        monkeypatch.setattr("notifications.broker.nudge.nudge", away)
        record = make_record()

        with django_capture_on_commit_callbacks(execute=True):
            confirm(admin_client, "replay", record)

        assert statuses() == ["pending"]

    def test_history_shows_user_and_reason(self, admin_client: Client, admin_user: User, nudges: list[None]) -> None:
        record = make_record()

        confirm(admin_client, "replay", record)

        entry = LogEntry.objects.get(object_id=str(record.pk))
        assert (entry.user_id, entry.change_message) == (admin_user.pk, "Replayed: endpoint fixed")
        assert "endpoint fixed" in admin_client.get(f"{LIST}{record.pk}/history/").content.decode()

    def test_sent_record_is_not_replayed_without_force(self, admin_client: Client, nudges: list[None]) -> None:
        record = make_record("sent")

        messages = confirm(admin_client, "replay", record)

        assert statuses() == ["sent"]
        assert messages == ["Nothing was changed.", "1 was not changed."]

    def test_sent_record_is_replayed_with_force(self, admin_client: Client, nudges: list[None]) -> None:
        record = make_record("sent")

        confirm(admin_client, "replay", record, force="on")

        assert statuses() == ["pending"]
        assert LogEntry.objects.get().change_message == "Replayed (forced): endpoint fixed"

    def test_record_being_sent_is_unchanged_even_with_force(self, admin_client: Client, nudges: list[None]) -> None:
        held, dead = make_record("sending"), make_record()

        messages = confirm(admin_client, "replay", held, dead, force="on")

        assert statuses() == ["sending", "pending"]
        assert messages == ["1 notification is sent again.", "1 was not changed."]

    def test_record_changed_after_confirmation_page_is_unchanged(
        self, admin_client: Client, nudges: list[None]
    ) -> None:
        record = make_record()
        asked = post(admin_client, "replay", record)
        NotificationRecord.objects.filter(pk=record.pk).update(status="sent")

        post(admin_client, "replay", record, confirm="yes", reason="x", newest=asked.context["newest"])

        assert statuses() == ["sent"]

    def test_whole_list_opens_the_replay_form_with_its_filters(self, admin_client: Client) -> None:
        for _ in range(60):
            make_record(last_error_code="provider_timeout")
        other = make_record(last_error_code="provider_config")

        asked = post(admin_client, "replay", other, query="?code=provider_timeout", select_across="1")

        assert asked["Location"] == "/admin/notifications/replayoperation/add/?codes=provider_timeout"
        assert "60 notifications match" in admin_client.get(asked["Location"]).content.decode()
        assert set(statuses()) == {"dead"}

    def test_confirmation_form_holds_all_data_of_the_second_post(
        self, admin_client: Client, nudges: list[None]
    ) -> None:
        records = [make_record(), make_record()]
        html = post(admin_client, "replay", *records, index=0).content.decode()

        for record in records:
            assert f'<input type="hidden" name="_selected_action" value="{record.pk}">' in html
        assert '<input type="hidden" name="action" value="replay">' in html
        assert f'<input type="hidden" name="newest" value="{records[-1].pk}">' in html
        assert "csrfmiddlewaretoken" in html


class TestCancelling:
    def test_cancel_skips_records_that_are_not_sent(self, admin_client: Client) -> None:
        waiting, dead = make_record("failed"), make_record()

        messages = confirm(admin_client, "cancel", waiting, dead)

        waiting.refresh_from_db()
        assert (waiting.status, waiting.last_error_code, waiting.next_attempt_at) == ("skipped", "cancelled", None)
        assert statuses() == ["skipped", "dead"]
        assert messages == ["1 notification was cancelled.", "1 was not changed."]


class TestExpired:
    def test_an_expired_record_is_not_replayed_and_its_page_says_so(self, admin_client: Client) -> None:
        late = timezone.now() - timedelta(minutes=1)
        expired = make_record("dead", expires_at=late)
        make_record("dead", expires_at=late)
        in_time = make_record("dead", expires_at=timezone.now() + timedelta(hours=1))

        page = admin_client.get(f"{LIST}{expired.pk}/change/").content.decode()
        asked = post(admin_client, "replay", *NotificationRecord.objects.all())
        confirm(admin_client, "replay", *NotificationRecord.objects.all())

        assert "It has expired, so it cannot be replayed." in page
        [row] = asked.context["rows"]
        assert (row["changed"], row["unchanged"], row["reason"]) == (1, 2, "2 expired; request them again")
        assert NotificationRecord.objects.get(status="pending") == in_time

    def test_the_command_says_how_many_are_left_out(self) -> None:
        make_record("dead", expires_at=timezone.now() - timedelta(minutes=1))
        make_record("dead")
        out = StringIO()

        call_command("replay_notifications", "--status=dead", "--dry-run", stdout=out)
        assert "1 would be replayed." in out.getvalue()
        assert "1 is left out: it has expired." in out.getvalue()

        call_command("replay_notifications", "--status=dead", "--reason=x", stdout=out)
        assert "1 was replayed." in out.getvalue()
        assert out.getvalue().count("1 is left out") == 2


class TestSendingNow:
    def test_send_now_makes_records_due_and_nudges_a_worker(
        self, admin_client: Client, nudges: list[None], django_capture_on_commit_callbacks: Any
    ) -> None:
        failed, scheduled = make_record("failed", attempt_count=2), make_record("pending")

        with django_capture_on_commit_callbacks(execute=True):
            messages = confirm(admin_client, "send_now", failed, scheduled)

        for record, attempts in ((failed, 2), (scheduled, 0)):
            record.refresh_from_db()
            assert record.next_attempt_at is not None
            assert record.next_attempt_at <= timezone.now()
            assert (record.attempt_count, record.round) == (attempts, 0)
        assert statuses() == ["failed", "pending"]
        assert messages == ["2 notifications are sent now."]
        assert len(nudges) == 1

    def test_send_now_leaves_other_records_unchanged_with_reason(
        self, admin_client: Client, nudges: list[None]
    ) -> None:
        records = [make_record(status) for status in ("sending", "sent", "dead", "skipped")]
        due = make_record("pending", next_attempt_at=timezone.now())

        asked = post(admin_client, "send_now", *records, due)
        facts = {"confirm": "yes", "reason": "x", "newest": asked.context["newest"]}
        post(admin_client, "send_now", *records, due, **facts)

        assert all(row["reason"] for row in asked.context["rows"])
        assert statuses() == ["sending", "sent", "dead", "skipped", "pending"]
        assert nudges == []
        assert not LogEntry.objects.exists()

    def test_what_could_not_be_sent_is_left_out_with_its_reason_and_count(
        self, admin_client: Client, make_user: Callable[..., User], nudges: list[None]
    ) -> None:
        now = timezone.now()
        states: dict[str, dict[str, Any]] = {
            "paused": {"paused_at": now},
            "failing": {"failures": 5, "probe_at": now + timedelta(minutes=5)},
            "probe due": {"failures": 5, "probe_at": now - timedelta(minutes=5)},
        }
        owners = {}
        for name, fields in states.items():
            owners[name] = make_user(name, "https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh1234")
            UserNotificationChannel.objects.filter(user=owners[name]).update(**fields)
        records = {name: make_record("pending", user_id=owner.pk) for name, owner in owners.items()}
        records["expired"] = make_record("pending", expires_at=now - timedelta(minutes=1))

        asked = post(admin_client, "send_now", *records.values())
        messages = confirm(admin_client, "send_now", *records.values())

        [row] = asked.context["rows"]
        assert (row["changed"], row["unchanged"]) == (1, 3)
        assert row["reason"] == (
            "1 expired; request them again; 2 have a paused or failing channel; resume it or wait for its probe"
        )
        assert messages == ["1 notification is sent now.", "3 were not changed."]
        due = NotificationRecord.objects.filter(next_attempt_at__lte=timezone.now())
        assert due.get() == records["probe due"]

    def test_history_shows_user_and_reason(self, admin_client: Client, admin_user: User, nudges: list[None]) -> None:
        record = make_record("failed")

        confirm(admin_client, "send_now", record)

        entry = LogEntry.objects.get(object_id=str(record.pk))
        assert (entry.user_id, entry.change_message) == (admin_user.pk, "Sent now: endpoint fixed")


class TestRecordPageButtons:
    def test_page_offers_the_operations_that_the_state_allows(self, admin_client: Client) -> None:
        for status, offered in [
            ("pending", {"send_now", "cancel"}),
            ("sending", set()),
            ("sent", {"replay"}),
            ("failed", {"send_now", "cancel"}),
            ("dead", {"replay"}),
            ("skipped", {"replay"}),
        ]:
            record = make_record(status)

            response = admin_client.get(f"{LIST}{record.pk}/change/")

            assert {operation.name for operation in response.context["operations"]} == offered, (status, offered)
            html = response.content.decode()
            assert {name for name in OPERATIONS if f'name="action" value="{name}"' in html} == offered, (
                status,
                offered,
            )

    def test_buttons_lead_back_to_the_page(self, admin_client: Client, nudges: list[None]) -> None:
        record = make_record()
        url = f"{LIST}{record.pk}/change/"

        asked = post(admin_client, "replay", record, from_record="1")
        done = post(
            admin_client, "replay", record, from_record="1", confirm="yes", reason="x", newest=asked.context["newest"]
        )

        assert f'href="{url}"' in asked.content.decode()
        assert done["Location"] == url
        assert statuses() == ["pending"]
