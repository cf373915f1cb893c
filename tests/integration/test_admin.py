"""The admin's lists and pages of records and rejected requests: permissions, content, queries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications.admin.record_explanations import explain_record
from notifications.admin.record_list import DatePeriods
from notifications.clock import page_now
from notifications.content.error_messages import ERROR_MESSAGES
from notifications.content.text import escape_invisible
from notifications.models import NotificationRecord, RejectedRequest
from notifications.states import ErrorCode, Outcome, Status, TestStatus
from tests.support.factories import LIST, make_attempt, make_record
from tests.support.query_plans import fill_table

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\u202e\u2066\u200b"
TEXTS = (
    *("dedupe_key", "summary_text", "fallback_text", "target_url", "trigger_id", "trigger_type", "preview_id"),
    *("target_type", "trace_id", "provider_message_id", "last_error_code"),
)
MODELS = ("notificationrecord", "usernotificationchannel", "rejectedrequest")


@pytest.fixture
def viewer(make_user: Callable[..., User]) -> Client:
    """A client signed in with all view permissions and no others."""
    user = make_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"view_{model}" for model in MODELS]))
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, url: str, **query: Any) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


def shown(client: Client, **query: Any) -> list[str]:
    """Return the dedupe keys that the list shows."""
    response = client.get(LIST, query)
    assert response.status_code == 200, response
    return [record.dedupe_key for record in response.context["cl"].result_list]


class TestViewPermission:
    @pytest.mark.parametrize("model", MODELS)
    def test_anonymous_user_is_redirected_to_login(self, client: Client, model: str) -> None:
        for url in (f"/admin/notifications/{model}/", f"/admin/notifications/{model}/1/change/"):
            assert client.get(url)["Location"].startswith("/admin/login/")

    def test_staff_without_permission_gets_403(self, make_user: Callable[..., User]) -> None:
        client = Client()
        client.force_login(make_user(is_staff=True))
        record = make_record()

        assert client.get(LIST).status_code == 403
        assert client.get(f"{LIST}{record.pk}/change/").status_code == 403

    def test_view_permission_opens_list_and_page(self, viewer: Client) -> None:
        record = make_record(dedupe_key="its-key")
        make_attempt(record, worker="worker-7:41")

        assert "its-key" in page(viewer, LIST)
        assert "worker-7:41" in page(viewer, f"{LIST}{record.pk}/change/")

    def test_records_cannot_be_added_changed_or_deleted(self, admin_client: Client) -> None:
        record = make_record()

        assert admin_client.get(f"{LIST}add/").status_code == 403
        assert admin_client.get(f"{LIST}{record.pk}/delete/").status_code == 403
        assert admin_client.post(f"{LIST}{record.pk}/change/", {"status": "sent"}).status_code == 403
        assert "delete_selected" not in page(admin_client, LIST)
        record.refresh_from_db()
        assert record.status == Status.DEAD

    def test_unknown_record_redirects(self, admin_client: Client) -> None:
        assert admin_client.get(f"{LIST}123456/change/").status_code == 302


class TestList:
    def test_row_shows_state_key_error_attempts_and_age(self, admin_client: Client) -> None:
        make_record(attempt_count=3, last_error_code="provider_timeout", dedupe_key="its-key")

        html = page(admin_client, LIST)

        for text in ("dead, action needed", "its-key", "feishu", "provider_<wbr>timeout", "3 / 5", "just now"):
            assert text in html

    def test_user_is_a_link_and_missing_user_is_an_id(
        self, admin_client: Client, make_user: Callable[..., User]
    ) -> None:
        user = make_user("alice")
        make_record(user_id=user.pk)
        make_record(user_id=987_654)

        html = page(admin_client, LIST)

        assert f'<a href="/admin/auth/user/{user.pk}/change/"><bdi>alice</bdi></a>' in html
        assert '<td class="field-owner"><bdi>987654</bdi></td>' in html

    @pytest.mark.parametrize(
        ("status", "text"),
        [("pending", "in 4 minutes"), ("sending", "being sent"), ("sent", "–"), ("failed", "in 4 min")],
    )
    def test_next_attempt_is_shown_in_words(self, admin_client: Client, status: str, text: str) -> None:
        make_record(status)

        assert text in page(admin_client, LIST).replace("\xa0", " ")

    def test_overdue_record_is_shown_as_due(self, admin_client: Client) -> None:
        make_record("failed", next_attempt_at=timezone.now() - timedelta(minutes=3, seconds=5))

        make_record("pending", next_attempt_at=timezone.now())

        html = page(admin_client, LIST).replace("\xa0", " ")

        assert "due 3 minutes ago" in html
        assert "due now" in html

    def test_list_shows_newest_first_with_fifty_per_page(self, admin_client: Client) -> None:
        now = timezone.now()
        for number in range(51):
            make_record(dedupe_key=f"k{number}", created_at=now - timedelta(minutes=number))

        assert shown(admin_client) == [f"k{number}" for number in range(50)]
        assert shown(admin_client, p=2) == ["k50"]

    def test_number_of_queries_is_independent_of_rows(self, admin_client: Client) -> None:
        def queries(rows: int) -> int:
            while NotificationRecord.objects.count() < rows:
                number = NotificationRecord.objects.count()
                user = User.objects.create(username=f"u{number}")
                make_record(user_id=user.pk if number % 2 else 900_000 + number)
            with CaptureQueriesContext(connection) as captured:
                page(admin_client, LIST)
            return len(captured)

        queries(1)  # fills caches: content types and the session
        page_now()  # asks PostgreSQL once a minute

        assert queries(5) == queries(50)

    def test_records_of_missing_users_are_listed(self, admin_client: Client) -> None:
        make_record(user_id=987_654, dedupe_key="orphan")

        assert shown(admin_client) == ["orphan"]


def test_each_state_has_a_colour_in_both_themes() -> None:
    css = Path(str(finders.find("notifications/admin.css"))).read_text()
    kinds = {*Status.values, *Outcome.values, *(value or "never" for value in TestStatus.values), "unreadable"}

    assert [kind for kind in kinds if not re.search(rf"\.n-{kind}\b", css)] == []
    themes = css.split("prefers-color-scheme: dark")[0], css.partition('data-theme="dark"')[2]
    for colour in set(re.findall(r"var\((--n-\w+-[fb]g)\)", css)):
        assert all(f"{colour}:" in theme for theme in themes), colour


class TestFiltersAndSearch:
    def test_list_filters_by_status_code_and_channel(self, admin_client: Client) -> None:
        make_record(dedupe_key="a", last_error_code="provider_config")
        make_record(dedupe_key="b", last_error_code="provider_timeout")
        make_record("sent", dedupe_key="c", channel="other")

        assert shown(admin_client, status__exact="sent") == ["c"]
        assert shown(admin_client, code="provider_timeout") == ["b"]
        assert shown(admin_client, channel="feishu") == ["b", "a"]

    def test_error_code_filter_runs_no_query(self, admin_client: Client) -> None:
        with CaptureQueriesContext(connection) as captured:
            html = page(admin_client, LIST)

        assert all(f"?code={code}" in html for code in ErrorCode)
        assert not [query["sql"] for query in captured if "DISTINCT" in query["sql"]]

    def test_search_matches_complete_values_only(self, admin_client: Client, make_user: Callable[..., User]) -> None:
        alice = make_user("alice", id=500_001)
        record = make_record(pk=700_001, dedupe_key="42:task:1", trace_id="trace 9", user_id=alice.pk)
        make_record(pk=700_002, dedupe_key="other")

        for term in ("42:task:1", "trace 9", " alice ", str(alice.pk), str(record.pk)):
            assert shown(admin_client, q=term) == ["42:task:1"], term
        for term in ("42:task", "trace", "alic", "9" * 30, "٤٢", "%", "'"):
            assert shown(admin_client, q=term) == [], term

    def test_search_uses_indexes(self, admin_client: Client) -> None:
        make_record(dedupe_key="77")
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
        response = admin_client.get(LIST, {"q": "77"})

        plan = response.context["cl"].queryset.order_by().explain()

        assert "Seq Scan" not in plan
        for read in ("notification_dedupe", "notification_trace", "(id = 77)", "(user_id = 77)"):
            assert read in plan

    def test_date_hierarchy_lists_each_period_from_first_to_last(self, admin_client: Client) -> None:
        for year, month, day in ((2024, 12, 30), (2025, 1, 2)):
            make_record(created_at=datetime(year, month, day, 23, tzinfo=UTC))

        assert "created_at__year=2024" in page(admin_client, LIST)
        html = page(admin_client, LIST, created_at__year=2025, created_at__month=1)
        assert shown(admin_client, created_at__year=2024) == [
            NotificationRecord.objects.earliest("created_at").dedupe_key
        ]
        assert "created_at__day=2" in html

    def test_periods_of_the_date_hierarchy_have_no_gaps(self) -> None:
        assert DatePeriods({}).datetimes("created_at", "day") == []
        make_record(created_at=datetime(2024, 1, 31, 12, tzinfo=UTC))
        make_record(created_at=datetime(2024, 3, 1, 0, tzinfo=UTC))

        months = DatePeriods({}).datetimes("created_at", "month")

        assert [(month.month, month.day) for month in months] == [(1, 1), (2, 1), (3, 1)]
        assert len(DatePeriods({}).datetimes("created_at", "day")) == 31

    def test_date_hierarchy_lists_the_periods_of_the_chosen_one(self, admin_client: Client) -> None:
        for year, month, day in ((2023, 11, 30), (2024, 2, 27), (2025, 1, 2)):
            make_record(created_at=datetime(year, month, day, tzinfo=UTC))

        months = page(admin_client, LIST, created_at__year=2023)
        days = page(admin_client, LIST, created_at__year=2024, created_at__month=2)

        assert re.findall(r"created_at__month=(\d+)&amp;created_at__year=2023", months) == ["11", "12"]
        assert len(set(re.findall(r"created_at__day=(\d+)", days))) == 29

    def test_date_hierarchy_of_a_filtered_list_has_the_dates_of_all_records(self, admin_client: Client) -> None:
        make_record("sent", created_at=datetime(2024, 5, 1, tzinfo=UTC))
        make_record("dead", created_at=datetime(2025, 5, 1, tzinfo=UTC))

        assert "created_at__year=2024&amp;status__exact=dead" in page(admin_client, LIST, status__exact="dead")


class TestCount:
    @pytest.fixture(autouse=True)
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("notifications.admin.record_list.MAX_COUNTED_RECORDS", 100)
        monkeypatch.setattr("notifications.admin.records.NotificationRecordAdmin.list_per_page", 50)

    def test_long_list_says_that_it_has_at_least_so_many_records(self, admin_client: Client) -> None:
        fill_table("a", "sent", 150)

        html = page(admin_client, LIST)

        assert "at least 100 notifications" in html
        assert "Select all notifications that match" in html
        for wrong in ("Select all 100", "All 100 selected", "100 results"):
            assert wrong not in html

    def test_each_page_of_a_long_list_leads_to_later_ones(self, admin_client: Client) -> None:
        fill_table("a", "sent", 230)

        assert 'href="?p=2"' in page(admin_client, LIST)
        assert "at least 200 notifications" in (second := page(admin_client, LIST, p=2))
        assert 'href="?p=4"' in second
        assert "230 notifications" in (last := page(admin_client, LIST, p=5))
        assert "at least" not in last
        assert len(shown(admin_client, p=5)) == 30

    def test_short_list_is_counted_exactly(self, admin_client: Client) -> None:
        fill_table("a", "sent", 99)

        html = page(admin_client, LIST)

        assert "99 notifications" in html
        assert "Select all 99 notifications" in html


class TestPage:
    def test_page_shows_request_response_and_attempts(self, admin_client: Client) -> None:
        record = make_record(provider_request={"message": {"summary": "你好"}}, provider_response={"code": 19001})
        make_attempt(record, 1, outcome=Outcome.LOST, duration_ms=None, http_status=None)
        make_attempt(record, 2, response_excerpt='{"code":19001}')

        html = page(admin_client, f"{LIST}{record.pk}/change/")

        assert "你好" in html
        assert "&quot;code&quot;: 19001" in html
        assert "worker lost, the message" in html
        assert "41 ms" in html
        assert "{&quot;code&quot;:19001}" in html

    def test_page_of_a_record_without_attempts_says_so(self, admin_client: Client) -> None:
        record = make_record("pending")

        assert "No attempts yet." in page(admin_client, f"{LIST}{record.pk}/change/")

    def test_page_explains_each_state(self, admin_client: Client) -> None:
        for status in Status.values:
            record = make_record(status)

            html = page(admin_client, f"{LIST}{record.pk}/change/")

            assert explain_record(record)[0].partition("(")[0] in html, status

    def test_overdue_records_are_explained(self) -> None:
        past = timezone.now() - timedelta(minutes=1)

        texts = [
            explain_record(make_record(status, next_attempt_at=past))[0] for status in ("pending", "sending", "failed")
        ]

        assert all("next available" in text for text in texts)
        assert len(set(texts)) == 3

    def test_each_error_code_has_a_message(self) -> None:
        assert set(ERROR_MESSAGES) == set(ErrorCode)
        assert str(ERROR_MESSAGES["payload_invalid"]) in explain_record(make_record(last_error_code="payload_invalid"))
        assert len(explain_record(make_record(last_error_code="a provider's own"))) == 2

    def test_replayed_record_is_not_explained_by_its_old_error(self) -> None:
        assert len(explain_record(make_record("pending", last_error_code="payload_invalid"))) == 1

    def test_remedy_of_a_lost_message_is_to_check_first(self) -> None:
        assert "Check whether" in explain_record(make_record(last_error_code=ErrorCode.LEASE_EXPIRED))[-1]

    def test_record_of_a_missing_user_has_a_page(self, admin_client: Client) -> None:
        record = make_record(user_id=987_654)

        assert "987654" in page(admin_client, f"{LIST}{record.pk}/change/")


class TestHostileText:
    def test_hostile_text_is_escaped_on_each_page(self, admin_client: Client, make_user: Callable[..., User]) -> None:
        user = make_user(HOSTILE[:30])
        record = make_record(
            user_id=user.pk,
            last_error=HOSTILE,
            provider_request={HOSTILE: HOSTILE},
            provider_response=HOSTILE,
            **dict.fromkeys(TEXTS, HOSTILE),
        )
        make_attempt(record, error=HOSTILE, response_excerpt=HOSTILE, worker=HOSTILE, error_code=HOSTILE)

        for url in (LIST, f"{LIST}{record.pk}/change/", f"{LIST}{record.pk}/history/"):
            assert "<script>alert" not in page(admin_client, url)
        html = page(admin_client, f"{LIST}{record.pk}/change/")
        assert "&lt;script&gt;alert" in html

    def test_bidi_controls_are_shown_as_escapes(self, admin_client: Client) -> None:
        record = make_record(dedupe_key="safe\u202egnp.exe", provider_response={"a": "\u202e"})

        labels = re.compile(r'aria-label="[^"]*"')  # Django's own labels, which are not visible
        assert "\u202e" not in labels.sub("", page(admin_client, LIST))
        assert "safe\\u202egnp.exe" in page(admin_client, f"{LIST}{record.pk}/change/")
        assert escape_invisible("a\u200bb\u2066c\ud800\x00👩\u200d🚀") == "a\\u200bb\\u2066c\\ud800\\u0000👩\u200d🚀"

    def test_long_text_is_truncated_with_a_note(self, admin_client: Client) -> None:
        record = make_record(provider_response={"text": "x" * 100_000}, last_error="y" * 100_000)

        html = page(admin_client, f"{LIST}{record.pk}/change/")

        assert "x" * 9_000 in html
        assert "x" * 10_001 not in html
        assert "y" * 10_001 not in html
        assert "Truncated: the first 10000 of 100000 characters." in html

    def test_deeply_nested_json_has_a_page(self, admin_client: Client) -> None:
        nested = json.loads("[" * 100 + "1" + "]" * 100)  # the deepest nesting that is stored
        record = make_record(provider_response=nested)

        assert 'n-block" tabindex="0">[' in page(admin_client, f"{LIST}{record.pk}/change/")


class TestRejected:
    URL = "/admin/notifications/rejectedrequest/"

    def reject(self, payload: str = '{"user_id": "x"}', errors: Any = None) -> RejectedRequest:
        wrong = [{"field": "user_id", "reason": "must be a whole number"}] if errors is None else errors
        return RejectedRequest.objects.create(source="notification.feishu.requested", payload=payload, errors=wrong)

    def test_list_shows_invalid_fields(self, viewer: Client) -> None:
        self.reject()

        html = page(viewer, self.URL)

        assert "<bdi>user_id</bdi>" in html
        assert "notification.feishu.requested" in html

    def test_list_does_not_read_payloads(self, viewer: Client) -> None:
        self.reject()

        with CaptureQueriesContext(connection) as captured:
            page(viewer, self.URL)

        assert not [query["sql"] for query in captured if '"payload"' in query["sql"]]

    def test_page_shows_reasons_and_payload(self, viewer: Client) -> None:
        rejected = self.reject('{"summary_text": "\\u4f60\\u597d", "user_id": "x"}')

        html = page(viewer, f"{self.URL}{rejected.pk}/change/")

        assert "must be a whole number" in html
        assert "你好" in html

    def test_every_payload_has_a_page(self, admin_client: Client) -> None:
        for payload in [
            '{"a": "<script>alert(1)</script>\\u202e\\ud800\\u0000"}',
            "<script>alert(1)",
            "[" * 900 + "]" * 900,
            "[" * 5000,
            "",
        ]:
            rejected = self.reject(payload, [{"field": HOSTILE, "reason": HOSTILE}, "not a dict"])

            html = page(admin_client, f"{self.URL}{rejected.pk}/change/")

            assert "<script>alert" not in html + page(admin_client, self.URL), payload
            assert "\u202e" not in html, payload

    def test_errors_of_unknown_shape_have_a_page(self, admin_client: Client) -> None:
        rejected = self.reject(errors={"odd": 1})

        page(admin_client, self.URL)
        page(admin_client, f"{self.URL}{rejected.pk}/change/")

    def test_long_payload_is_truncated_with_a_note(self, admin_client: Client) -> None:
        rejected = self.reject("z" * 100_000)

        html = page(admin_client, f"{self.URL}{rejected.pk}/change/")

        assert "z" * 10_001 not in html
        assert "Truncated: the first 10000 of 100000 characters." in html

    def test_rejected_requests_can_only_be_deleted(self, admin_client: Client, viewer: Client) -> None:
        rejected = self.reject()
        url = f"{self.URL}{rejected.pk}/"

        assert admin_client.get(f"{self.URL}add/").status_code == 403
        assert admin_client.post(f"{url}change/", {"source": "x"}).status_code == 403
        assert viewer.post(f"{url}delete/", {"post": "yes"}).status_code == 403
        assert admin_client.post(f"{url}delete/", {"post": "yes"}).status_code == 302
        assert not RejectedRequest.objects.exists()
