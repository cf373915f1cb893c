"""Replay operations in the admin: count, start, progress, stop and permissions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.http import QueryDict
from django.test import Client
from django.utils import timezone
from django.utils.datastructures import MultiValueDict

from notifications.admin import replay_operations as page
from notifications.admin.replay_form import ReplayForm, UnsupportedFilter, criteria_query
from notifications.models import NotificationRecord, ReplayOperation
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
from notifications.replay.runner import run_next_batch
from tests.support.factories import LIST, make_record

pytestmark = pytest.mark.django_db

OPERATIONS = "/admin/notifications/replayoperation/"
ADD = f"{OPERATIONS}add/"


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifications.broker.nudge._publish", lambda task: None)


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


def count(client: Client, **criteria: Any) -> Any:
    return client.post(ADD, {"rate": "600", "_count": "yes"} | criteria)


def start(client: Client, counted: Any, **changes: Any) -> Any:
    """Post the form of a counted page, with a reason."""
    form = counted.context["form"]
    held = {field.name: field.value() for field in form if field.value()}
    return client.post(ADD, held | {"reason": "endpoint fixed", "_start": "yes"} | changes)


def ordered(**fields: Any) -> ReplayOperation:
    return create_operation(Criteria(**fields), None, "endpoint fixed")


class TestCounting:
    def test_count_shows_groups_and_changes_nothing(self, admin_client: Client) -> None:
        now = timezone.now()
        for minutes in (10, 20):
            make_record(last_error_code="provider_5xx", updated_at=now - timedelta(minutes=minutes))
        make_record("skipped", last_error_code="recipient_missing", channel="other")

        response = count(admin_client, rate="1")

        html = response.content.decode()
        assert "3 notifications match" in html
        assert "about 3 minutes" in html
        assert [(row["count"], str(row["code"])) for row in response.context["rows"]] == [
            (2, "<bdi>provider_5xx</bdi>"),
            (1, "<bdi>recipient_missing</bdi>"),
        ]
        assert not ReplayOperation.objects.exists()

    def test_get_counts_the_criteria_of_a_link(self, admin_client: Client) -> None:
        make_record(last_error_code="provider_5xx")
        make_record()

        html = admin_client.get(ADD, {"codes": "provider_5xx"}).content.decode()

        assert "1 notification matches" in html
        assert 'value="600"' in html

    def test_get_starts_no_replay(self, admin_client: Client) -> None:
        make_record()
        facts = {"counted": "{}", "as_of": timezone.now().isoformat(), "reason": "x", "_start": "yes"}

        admin_client.get(ADD, facts)

        assert not ReplayOperation.objects.exists()

    def test_replay_cannot_start_without_matches(self, admin_client: Client) -> None:
        assert "_start" not in count(admin_client).content.decode()

    def test_invalid_criteria_are_reported_at_their_field(self, admin_client: Client) -> None:
        for criteria, field in [
            ({"statuses": "pending"}, "statuses"),
            ({"statuses": "sent"}, "statuses"),
            ({"force": "on"}, "force"),
            ({"user": "seven"}, "user"),
            ({"changed_from": "yesterday"}, "changed_from"),
            ({"trace_id": "a\x00"}, "trace_id"),
            ({"rate": "0"}, "rate"),
        ]:
            response = count(admin_client, **criteria)

            assert list(response.context["form"].errors) == [field], (criteria, field)
            assert "_start" not in response.content.decode(), (criteria, field)

    def test_count_timeout_is_reported(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        def slow(*args: object) -> None:
            raise OperationalError("canceling statement due to statement timeout")

        monkeypatch.setattr(page, "breakdown", slow)

        assert "Too many notifications to count" in count(admin_client).content.decode()


class TestStarting:
    def test_start_creates_the_counted_operation_and_redirects_to_it(
        self, admin_client: Client, admin_user: User
    ) -> None:
        record = make_record(last_error_code="provider_5xx", updated_at=timezone.now() - timedelta(minutes=30))
        window = {"changed_from": (timezone.now() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")}

        done = start(admin_client, count(admin_client, codes="provider_5xx", **window))

        operation = ReplayOperation.objects.get()
        assert done["Location"] == f"{OPERATIONS}{operation.pk}/change/"
        assert (operation.created_by, operation.reason, operation.rate) == (admin_user, "endpoint fixed", 600)
        assert operation.criteria["codes"] == ["provider_5xx"]
        run_next_batch()
        record.refresh_from_db()
        assert (record.status, record.replay_operation_id) == ("pending", operation.pk)

    def test_an_order_that_is_sent_twice_starts_one_operation(self, admin_client: Client) -> None:
        make_record()
        counted = count(admin_client, statuses="dead")

        first = start(admin_client, counted)
        second = start(admin_client, counted)
        run_next_batch()
        third = start(admin_client, counted)

        [operation] = ReplayOperation.objects.all()
        assert urlsplit(first["Location"]).path == f"{OPERATIONS}{operation.pk}/change/"
        assert second["Location"] == third["Location"] == first["Location"]
        text = "Nothing was started: this operation has the same criteria."
        assert admin_client.get(second["Location"]).content.decode().count(text) == 2

    def test_start_requires_a_reason(self, admin_client: Client) -> None:
        make_record()

        response = start(admin_client, count(admin_client), reason=" ")

        assert "reason" in response.context["form"].errors
        assert response.context["can_start"]
        assert not ReplayOperation.objects.exists()

    def test_changed_criteria_are_counted_before_start(self, admin_client: Client) -> None:
        make_record()
        counted = count(admin_client, codes="provider_5xx")

        response = start(admin_client, counted, codes="provider_config")

        assert "The criteria were changed" in response.content.decode()
        assert not ReplayOperation.objects.exists()
        assert start(admin_client, response).status_code == 302

    @pytest.mark.parametrize("as_of", ["", "then", "2026-05-01T08:00:00"])
    def test_invalid_count_time_is_counted_again(self, admin_client: Client, as_of: str) -> None:
        make_record()

        response = start(admin_client, count(admin_client), as_of=as_of)

        assert "The criteria were changed" in response.content.decode()

    def test_record_that_died_after_the_count_is_not_replayed(self, admin_client: Client) -> None:
        counted = count(admin_client)
        make_record(updated_at=timezone.now() + timedelta(seconds=1))

        start(admin_client, counted)

        assert ReplayOperation.objects.get().matched == 0


class TestPage:
    def test_page_shows_progress_and_refreshes_itself(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("notifications.replay.runner.MAX_BATCH_RECORDS", 1)
        for _ in range(4):
            make_record(updated_at=timezone.now() - timedelta(hours=1))
        operation = ordered(codes=("provider_config",))
        run_next_batch()

        html = admin_client.get(f"{OPERATIONS}{operation.pk}/change/").content.decode()

        assert "1 of 4 replayed (25%)." in html
        assert '<progress class="n-progress" max="100" value="25"' in html
        assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in html
        assert "endpoint fixed" in html
        assert "provider_config" in html

    def test_page_of_an_ended_operation_does_not_refresh(self, admin_client: Client) -> None:
        operation = ordered()
        run_next_batch()

        html = admin_client.get(f"{OPERATIONS}{operation.pk}/change/").content.decode()

        assert "refresh" not in html
        assert "progress.js" not in html
        assert "100%" in html

    def test_page_links_to_the_replayed_records(self, admin_client: Client) -> None:
        touched = make_record(updated_at=timezone.now() - timedelta(hours=1))
        operation = ordered()
        run_next_batch()
        other = make_record()
        link = f"{LIST}?replay_operation={operation.pk}"

        assert f'href="{link}"' in admin_client.get(f"{OPERATIONS}{operation.pk}/change/").content.decode()
        html = admin_client.get(link).content.decode()
        assert touched.dedupe_key in html
        assert other.dedupe_key not in html

    def test_page_explains_a_failed_operation(self, admin_client: Client) -> None:
        operation = ordered()
        ReplayOperation.objects.update(criteria=[])
        run_next_batch()

        html = admin_client.get(f"{OPERATIONS}{operation.pk}/change/").content.decode()

        assert "An internal error stopped" in html
        assert "InvalidCriteria" in html

    def test_operation_of_a_deleted_user_has_a_page(self, admin_client: Client, make_user: Callable[..., User]) -> None:
        operator = make_user("operator")
        operation = create_operation(Criteria(), operator, "x")
        number = operator.pk
        operator.delete()

        for url in (OPERATIONS, f"{OPERATIONS}{operation.pk}/change/"):
            assert str(number) in admin_client.get(url).content.decode()

    @pytest.mark.parametrize("number", ["999999999", "seven"])
    def test_unknown_operation_gets_404(self, admin_client: Client, number: str) -> None:
        assert admin_client.get(f"{OPERATIONS}{number}/change/").status_code == 404
        assert admin_client.post(f"{OPERATIONS}{number}/cancel/").status_code in (404, 302)


class TestStopping:
    def test_stop_ends_the_operation_and_is_in_the_history(self, admin_client: Client) -> None:
        make_record(updated_at=timezone.now() - timedelta(hours=1))
        operation = ordered()
        url = f"{OPERATIONS}{operation.pk}/change/"
        assert "Stop this replay" in admin_client.get(url).content.decode()

        done = admin_client.post(f"{OPERATIONS}{operation.pk}/cancel/", follow=True)

        operation.refresh_from_db()
        assert (operation.status, run_next_batch()) == ("cancelled", False)
        assert "The replay was stopped." in done.content.decode()
        assert "Stop this replay" not in done.content.decode()
        assert "Cancelled" in admin_client.get(f"{OPERATIONS}{operation.pk}/history/").content.decode()

    def test_stop_of_an_ended_operation_is_reported(self, admin_client: Client) -> None:
        operation = ordered()
        run_next_batch()

        done = admin_client.post(f"{OPERATIONS}{operation.pk}/cancel/", follow=True)

        assert "The replay had already ended." in done.content.decode()


class TestPermissions:
    def test_view_permission_shows_progress_without_buttons(self, staff: Callable[..., Client]) -> None:
        operation = ordered()
        client = staff("view")

        html = client.get(f"{OPERATIONS}{operation.pk}/change/").content.decode()

        assert "0 of 0 replayed" in html
        assert "Stop this replay" not in html
        assert client.get(ADD).status_code == 403
        assert client.post(f"{OPERATIONS}{operation.pk}/cancel/").status_code == 403

    def test_view_and_replay_permission_start_and_stop(self, staff: Callable[..., Client]) -> None:
        make_record()
        client = staff("view", "replay")

        done = start(client, count(client))

        operation = ReplayOperation.objects.get()
        assert client.post(f"{OPERATIONS}{operation.pk}/cancel/")["Location"] == done["Location"]

    def test_replay_permission_alone_opens_no_replay_page(self, staff: Callable[..., Client]) -> None:
        operation = ordered()
        client = staff("replay")

        for url in (OPERATIONS, ADD, f"{OPERATIONS}{operation.pk}/change/"):
            assert client.get(url).status_code == 403


class TestCriteriaOfAList:
    def test_filters_of_the_list_become_criteria(self) -> None:
        cases: list[tuple[str, str]] = [
            ("", ""),
            ("status__exact=dead&code=provider_5xx&channel=feishu", "statuses=dead&codes=provider_5xx&channel=feishu"),
            ("q=key-1&o=-1&p=2", "search=key-1"),
            ("now=dead", "statuses=dead&changed_from=2026-05-01T08:00:00"),
            ("now=dead&status__exact=dead", "statuses=dead&changed_from=2026-05-01T08:00:00"),
            ("trace=t-1&preview=p-1", "trace_id=t-1&preview_id=p-1"),
            ("status__in=dead,skipped&user_id=7", "statuses=dead&statuses=skipped&user=7"),
            (
                "created_at__gte=2026-05-01+00%3A00%3A00%2B08%3A00&created_at__lt=2026-05-02+00%3A00%3A00%2B08%3A00",
                "created_from=2026-04-30T16:00:00&created_until=2026-05-01T16:00:00",
            ),
            ("created_at__year=2026", "created_from=2026-01-01T00:00:00&created_until=2027-01-01T00:00:00"),
            (
                "created_at__year=2026&created_at__month=12",
                "created_from=2026-12-01T00:00:00&created_until=2027-01-01T00:00:00",
            ),
            (
                "created_at__year=2026&created_at__month=2&created_at__day=28",
                "created_from=2026-02-28T00:00:00&created_until=2026-03-01T00:00:00",
            ),
        ]
        for query, order in cases:
            found = criteria_query(QueryDict(query).dict(), datetime(2026, 5, 2, 8, tzinfo=UTC))

            assert parse_qs(found) == (parse_qs(order) if order else {}), (query, order)
            form = ReplayForm(MultiValueDict(parse_qs(found)))
            assert form.is_valid(), form.errors

    def test_unsupported_filters_are_refused(self) -> None:
        for query in [
            "replay_operation=7",
            "created_at__gte=soon",
            "created_at__year=x",
            "created_at__year=2026&created_at__month=13",
        ]:
            with pytest.raises(UnsupportedFilter):
                criteria_query(QueryDict(query).dict(), datetime(2026, 5, 2, 8, tzinfo=UTC))

    def test_the_overviews_own_way_to_the_dead_ends_in_the_counted_order(self, admin_client: Client) -> None:
        recent = make_record(last_error_code="provider_5xx")
        make_record(last_error_code="network_error")
        NotificationRecord.objects.filter(pk=make_record(last_error_code="provider_5xx").pk).update(
            updated_at=timezone.now() - timedelta(days=2)
        )
        data = {"action": "replay", "_selected_action": recent.pk, "select_across": "1"}

        response = admin_client.post(f"{LIST}?now=dead&code=provider_5xx", data, follow=True)

        assert response.context["count"] == 1
        assert "does not support this filter" not in response.content.decode()

    def test_unsupported_filter_shows_a_message(self, admin_client: Client) -> None:
        record = make_record()
        data = {"action": "replay", "_selected_action": record.pk, "select_across": "1"}

        response = admin_client.post(f"{LIST}?fallback_used__exact=0&status=dead", data, follow=True)

        assert urlsplit(response.redirect_chain[0][0]).query == "statuses=dead"
        assert "does not support this filter: fallback_used__exact" in response.content.decode()
        assert NotificationRecord.objects.get().status == "dead"
