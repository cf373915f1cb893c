"""The admin page of one record: the explanation of its state, its text, and related objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.utils import timezone

from notifications.admin.display import format_time
from notifications.admin.record_explanations import HOLD_EXPLANATIONS, explain_record
from notifications.conf import service_options
from notifications.content.error_messages import ERROR_MESSAGES, ERROR_REMEDIES
from notifications.delivery.claim import claim
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.states import ErrorCode, HoldReason, Status
from tests.support.factories import LIST, make_attempt, make_record

pytestmark = pytest.mark.django_db


def page(client: Client, record: NotificationRecord) -> str:
    response = client.get(f"{LIST}{record.pk}/change/")
    assert response.status_code == 200
    return response.content.decode()


def test_the_link_is_shown_as_it_is_sent(admin_client: Client) -> None:
    content = page(admin_client, make_record(target_url="/a b/周报"))

    assert f"{service_options().frontend_base_url}/a%20b/%E5%91%A8%E6%8A%A5" in content


def test_a_replaced_text_is_shown_with_its_reason(admin_client: Client) -> None:
    replaced = {"summary_text": {"reason": "external_link", "text": "see https://evil.example <b>"}}
    content = page(admin_client, make_record(summary_text="", fallback_used=True, replaced_texts=replaced))

    assert "see https://evil.example &lt;b&gt;" in content
    assert "it contains a link to another site" in content


class TestSentences:
    def test_each_error_code_has_a_meaning_and_a_remedy(self) -> None:
        for code in list(ErrorCode):
            assert set(ERROR_REMEDIES) == set(ErrorCode), code
            for status in (Status.DEAD, Status.SKIPPED):
                assert explain_record(make_record(status, last_error_code=code))[1:] == [
                    str(ERROR_MESSAGES[code]),
                    str(ERROR_REMEDIES[code]),
                ]

    def test_each_state_has_a_sentence_for_every_error_code(self) -> None:
        codes = (*ErrorCode, "", "a provider's own")
        for status, due, code in itertools.product(Status.values, (-60, 60), codes):
            record = make_record(status, last_error_code=code)
            if record.next_attempt_at:
                record.next_attempt_at = timezone.now() + timedelta(seconds=due)
            sentences = explain_record(record)
            assert all(sentences), (status, due, code)
            assert all("%(" not in sentence for sentence in sentences), (status, due, code)

    def test_record_being_sent_shows_its_lease_and_previous_worker(self) -> None:
        record = make_record("sending", attempt_count=3)
        make_attempt(record, 1, worker="worker-1:7")
        make_attempt(record, 2, worker="worker-2:9")

        [sentence] = explain_record(record)

        assert record.next_attempt_at
        assert format_time(record.next_attempt_at) in sentence
        assert "worker-2:9" in sentence
        assert "worker-1:7" not in sentence

    def test_record_held_by_its_endpoint_shows_the_reason_and_no_time(self) -> None:
        reasons = (HoldReason.CHANNEL_PAUSED, HoldReason.ENDPOINT_FAILING)
        for reason, status in itertools.product(reasons, ("pending", "failed", "sending")):
            record = make_record(status, hold_reason=reason, last_error_code="provider_config")

            first, *cause = explain_record(record)

            assert first == str(HOLD_EXPLANATIONS[reason]), (reason, status)
            assert cause == ([str(ERROR_MESSAGES["provider_config"])] if status == "failed" else []), (reason, status)

    def test_rate_limited_record_shows_the_time_of_its_next_attempt(self) -> None:
        record = make_record("pending", hold_reason=HoldReason.RATE_LIMITED)

        when, why = explain_record(record)

        assert record.next_attempt_at
        assert format_time(record.next_attempt_at) in when
        assert why == str(HOLD_EXPLANATIONS[HoldReason.RATE_LIMITED])

    def test_missing_worker_name_is_shown_as_none(self) -> None:
        record = make_record("sending", attempt_count=1)
        make_attempt(record, 1, worker="")

        assert "previous attempt: none." in explain_record(record)[0]

    def test_failed_record_shows_the_time_of_its_next_attempt(self) -> None:
        record = make_record("failed", attempt_count=2, last_error_code="provider_5xx")

        first, why, advice = explain_record(record)

        assert record.next_attempt_at
        assert format_time(record.next_attempt_at) in first
        assert why == str(ERROR_MESSAGES["provider_5xx"])
        assert "send the notification now" in advice


class TestMessage:
    @pytest.mark.parametrize(
        "fields",
        [
            {"summary_text": "Move the report"},
            {"summary_text": "", "fallback_text": "Look at the plan", "fallback_used": True},
            {"summary_text": "See /assistant/c-1"},
        ],
    )
    @pytest.mark.django_db(transaction=True)
    def test_page_shows_the_text_exactly_as_sent(self, admin_client: Client, fields: dict[str, Any]) -> None:
        record = make_record("pending", next_attempt_at=timezone.now(), **fields)

        html = page(admin_client, record)

        [claimed] = claim(1, channels=["feishu"], options=service_options(), clock=None)
        assert f'<pre class="n-block" tabindex="0">{claimed.request.message_text}</pre>' in html
        assert "https://app.example.com/assistant/c-1" in html


class TestRelatedObjects:
    def test_attempts_are_below_the_state(self, admin_client: Client) -> None:
        record = make_record()
        make_attempt(record, worker="worker-1:7")

        html = page(admin_client, record)

        assert html.index("Attempts:") < html.index("worker-1:7") < html.index("Dedupe key:")
        assert html.count("worker-1:7") == 1

    @pytest.mark.parametrize(("field", "parameter"), [("trace_id", "trace"), ("preview_id", "preview")])
    def test_identifier_links_to_records_that_share_it(self, admin_client: Client, field: str, parameter: str) -> None:
        first, second = make_record(**{field: "a b&c"}), make_record(**{field: "a b&c"})
        make_record(**{field: "other"})

        html = page(admin_client, first)
        listed = admin_client.get(LIST, {parameter: "a b&c"}).context["cl"].result_list

        assert f'href="{LIST}?{parameter}=a+b%26c"' in html
        assert "2 notifications with this id" in html
        assert {record.pk for record in listed} == {first.pk, second.pk}

    def test_unique_identifier_has_no_link(self, admin_client: Client) -> None:
        assert "notifications with this id" not in page(admin_client, make_record(trace_id="t", preview_id="p"))

    @pytest.mark.parametrize(
        ("field", "parameter", "index"),
        [("trace_id", "trace", "notification_trace"), ("preview_id", "preview", "notification_preview")],
    )
    def test_identifier_filter_uses_an_index(
        self, admin_client: Client, field: str, parameter: str, index: str
    ) -> None:
        make_record(**{field: "x"})
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")

        records = admin_client.get(LIST, {parameter: "x"}).context["cl"].queryset

        assert index in records.order_by().explain()

    def test_unknown_identifier_matches_nothing(self, admin_client: Client) -> None:
        make_record(trace_id="t")

        for value in ("none", "\x00", "'"):
            assert not admin_client.get(LIST, {"trace": value}).context["cl"].result_list

    def test_page_links_to_the_channel_with_its_state(
        self, admin_client: Client, make_user: Callable[..., User]
    ) -> None:
        user = make_user("reader")
        channel = UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())

        html = page(admin_client, make_record(user_id=user.pk))

        assert f'href="/admin/notifications/usernotificationchannel/{channel.pk}/change/"' in html
        assert '<span class="n-badge n-paused">paused</span>' in html
        assert "The recipient has no such endpoint." in page(admin_client, make_record(user_id=987_654))

    def test_channel_is_hidden_without_permission(self, make_user: Callable[..., User]) -> None:
        user = make_user("viewer", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_notificationrecord"))
        UserNotificationChannel.objects.create(user=user)
        client = Client()
        client.force_login(user)

        html = page(client, make_record(user_id=user.pk))

        assert "usernotificationchannel" not in html
        assert "Endpoint:" not in html
