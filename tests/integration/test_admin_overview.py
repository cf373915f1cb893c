"""The overview shows each problem with its remedy, and stays fast however many rows there are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications.admin.current_states import CURRENT_STATES
from notifications.admin.overview import counts
from notifications.admin.overview.chart_geometry import Plot, Series, build_bar_chart, build_line_chart
from notifications.admin.overview.charts import format_duration, format_number
from notifications.admin.overview.history import last_day, last_month, percentile
from notifications.admin.overview.server_status import PostgresqlStatus
from notifications.models import Heartbeat, NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.monitoring.indicators import Indicators
from notifications.states import HeartbeatKind, Measure, Outcome, Status
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS
from tests.support.counter_rows import make_counter
from tests.support.factories import LIST, make_record
from tests.support.query_plans import all_nodes, fill_table

pytestmark = pytest.mark.django_db

URL = "/admin/notifications/"
VIEW = ("view_notificationrecord", "view_rejectedrequest", "view_usernotificationchannel")


@pytest.fixture
def browse(make_user: Callable[..., User]) -> Callable[..., Client]:
    """Return a function that gives the browser of somebody with these permissions."""

    def browse_as(*codes: str) -> Client:
        user = make_user("operator", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codes))
        client = Client()
        client.force_login(user)
        return client

    return browse_as


@pytest.fixture
def alive(db: None) -> None:
    """Two workers, beat and sweep have just written a heartbeat."""
    for name, kind in (
        ("w:1", HeartbeatKind.WORKER),
        ("w:2", HeartbeatKind.WORKER),
        ("beat", HeartbeatKind.BEAT),
        ("sweep", HeartbeatKind.SWEEP),
    ):
        Heartbeat.objects.create(name=name, kind=kind)


def open_overview(client: Client) -> tuple[Any, str]:
    """Return the Overview of the page, and its HTML."""
    response = client.get(URL)
    assert response.status_code == 200
    return response.context["overview"], response.content.decode()


def ago(**lengths: float) -> datetime:
    return timezone.now() - timedelta(**lengths)


class TestWhoMayLook:
    def test_anonymous_is_sent_to_the_login(self, client: Client) -> None:
        assert client.get(URL)["Location"].startswith("/admin/login/")

    def test_a_user_without_permission_gets_the_plain_index(self, browse: Callable[..., Client]) -> None:
        make_record()

        overview, html = open_overview(browse("view_rejectedrequest"))

        assert overview is None
        assert "n-overview" not in html
        assert "/admin/notifications/rejectedrequest/" in html

    def test_each_part_needs_the_permission_to_view_what_it_counts(
        self, browse: Callable[..., Client], alive: None
    ) -> None:
        user = User.objects.create(username="reader")
        UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())
        RejectedRequest.objects.create(source="x", payload="{}", errors=[])

        overview, html = open_overview(browse("view_notificationrecord"))

        assert overview.problems == []
        assert "/admin/notifications/rejectedrequest/" not in html
        assert "/admin/notifications/usernotificationchannel/" not in html

    def test_a_user_with_all_permissions_sees_every_card(self, browse: Callable[..., Client], alive: None) -> None:
        overview, _html = open_overview(browse(*VIEW))

        assert len(overview.record_cards) == len(CURRENT_STATES) - 1 + 2  # records of lost workers are in a note


def test_the_page_is_chinese_for_a_chinese_browser(admin_client: Client) -> None:
    make_record("dead")

    html = admin_client.get(URL, headers={"accept-language": "zh-CN"}).content.decode()

    for text in ("最近 24 小时", "从请求到送达的时间"):
        assert text in html
    for text in ("Time from request to delivery", "Attempts per delivery"):
        assert text not in html


class TestNumbers:
    def test_each_count_matches_the_list_behind_it(self, admin_client: Client) -> None:
        make_record("sent")
        make_record("dead", updated_at=ago(hours=25))
        made = {
            name: make_record(status, **({"next_attempt_at": ago(seconds=-seconds)} if seconds else {})).pk
            for name, status, seconds in (
                *(("due pending", "pending", -3), ("due failed", "failed", -3), ("vanished", "sending", -3)),
                *(("sending", "sending", 30), ("retry", "failed", 300), ("scheduled", "pending", 90_000)),
                ("dead", "dead", 0),
            )
        }

        later = ago(seconds=-300)
        for name, status, reason in (
            *(("paused", "pending", "channel_paused"), ("probed", "failed", "endpoint_failing")),
            *(("limited", "pending", "rate_limited"), ("ordered", "pending", "order")),
        ):
            made[name] = make_record(status, next_attempt_at=later, hold_reason=reason).pk
        several = {"due": ("due pending", "due failed", "vanished"), "held": ("paused", "probed")}

        for name, count in counts.count_records(Indicators()).items():
            response = admin_client.get(count.url)
            listed = {record.pk for record in response.context["cl"].result_list}
            assert listed == {made[key] for key in several.get(name, (name,))}, name
            if name == "held":
                assert "the channel is paused" in response.content.decode()
            assert count.number == len(listed), name

    def test_each_current_state_has_a_count(self) -> None:
        assert counts.count_records(Indicators()).keys() == CURRENT_STATES.keys()

    def test_failed_records_are_counted_by_code_with_links(self, admin_client: Client) -> None:
        for code in ("provider_5xx", "provider_5xx", "network_error"):
            make_record("failed", last_error_code=code)

        retry = counts.count_records(Indicators())["retry"]

        assert [(count.code, count.number) for count in retry.codes] == [("provider_5xx", 2), ("network_error", 1)]
        assert len(admin_client.get(retry.codes[0].url).context["cl"].result_list) == 2
        assert f'href="{retry.codes[0].url.replace("&", "&amp;")}"' in open_overview(admin_client)[1]

    def test_counting_stops_at_its_limit(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(counts, "MAX_RANGE_ROWS", 3)
        for _ in range(5):
            make_record("failed", last_error_code="network_error")

        overview, html = open_overview(admin_client)

        assert "at least 3" in html
        assert sum(count.number for card in overview.record_cards for count in card.codes) == 3

    def test_rejected_requests_and_paused_channels_are_counted_with_links(self, admin_client: Client) -> None:
        user = User.objects.create(username="reader")
        UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())
        UserNotificationChannel.objects.create(user=User.objects.create(username="other"))
        for hours in (1, 25):
            RejectedRequest.objects.create(source="x", payload="{}", errors=[], created_at=ago(hours=hours))

        for count in (counts.count_rejected(Indicators()), counts.count_paused(Indicators())):
            assert count.number == 1
            assert len(admin_client.get(count.url).context["cl"].result_list) == 1


class TestProblems:
    def test_a_healthy_site_has_no_problems(self, admin_client: Client, alive: None) -> None:
        make_record("sent")
        make_record("pending", next_attempt_at=ago(seconds=1))

        overview, html = open_overview(admin_client)

        assert overview.problems == []
        assert "No problems" in html

    def test_a_problem_has_a_link_to_its_list(self, admin_client: Client, alive: None) -> None:
        for minutes in (10, 6):
            make_record("pending", next_attempt_at=ago(minutes=minutes, seconds=5))
        make_record("dead")
        RejectedRequest.objects.create(source="x", payload="{}", errors=[])
        user = User.objects.create(username="reader")
        UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())

        problems, html = open_overview(admin_client)[0].problems, open_overview(admin_client)[1]

        expected = (
            ("A notification has been due for 10 min; the limit is 5 min. 2 notifications are due.", "?now=due"),
            ("1 notification became dead in the last 24 hours (provider_config).", "?now=dead"),
            ("1 channel is paused.", "?paused_at__isempty=0"),
            ("1 request was rejected in the last 24 hours: the payload was invalid.", "rejectedrequest/?now=day"),
        )
        for problem, (title, url) in zip(problems, expected, strict=True):
            assert problem.title.startswith(title)
            assert problem.url.endswith(url)
            assert problem.action, title
            assert problem.button in html, title
        assert "4 problems need action" in html

    def test_many_failed_attempts_are_a_problem(self, admin_client: Client, alive: None) -> None:
        make_counter(Measure.ATTEMPTS, 20, outcome=Outcome.SUCCESS)
        make_counter(Measure.ATTEMPTS, 10, outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx")

        [problem] = open_overview(admin_client)[0].problems

        assert problem.title.startswith("33% of the attempts of this hour and the last one failed")
        assert "now=retry" in problem.url

    def test_a_few_failed_attempts_are_no_problem(self, admin_client: Client, alive: None) -> None:
        make_counter(Measure.ATTEMPTS, 5, outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx")

        assert open_overview(admin_client)[0].problems == []

    def test_a_due_record_on_a_channel_without_provider_is_a_problem(self, admin_client: Client, alive: None) -> None:
        make_record("pending", channel="pigeon", next_attempt_at=ago(seconds=1))

        [problem] = open_overview(admin_client)[0].problems

        assert problem.title == "Notifications are due on channels without a provider: pigeon."
        assert "now=due" in problem.url

    def test_critical_problems_come_first(self, admin_client: Client) -> None:
        make_record("dead")

        problems = open_overview(admin_client)[0].problems

        assert [problem.severity for problem in problems] == ["critical", "warning"]

    def test_no_card_contradicts_the_problems(self, admin_client: Client, alive: None) -> None:
        Heartbeat.objects.exclude(kind=HeartbeatKind.SWEEP).update(seen_at=ago(minutes=10))

        overview, _html = open_overview(admin_client)

        assert [problem.title for problem in overview.problems] == ["No worker is running: no heartbeat for 60 s."]
        levels = [card.level for card in overview.dependency_cards]
        assert levels == ["check", "ok", "check", "ok", "ok"]  # workers, sweep, beat, PostgreSQL, Redis

    def test_each_trouble_of_postgresql_is_a_problem(
        self, admin_client: Client, alive: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        healthy: dict[str, Any] = {"milliseconds": 1.0, "connections": 5, "max_connections": 100, "read_only": False}
        for change, words in (
            ({"read_only": True}, "PostgreSQL is read-only."),
            ({"connections": 95}, "will soon refuse connections: 95 of 100"),
            ({"milliseconds": 900.0}, "took 900 ms"),
        ):
            status = PostgresqlStatus(**(healthy | change))
            monkeypatch.setattr("notifications.admin.overview.data.measure_postgresql", lambda status=status: status)

            [problem] = open_overview(admin_client)[0].problems

            assert words in problem.title


class TestHistory:
    def test_a_percentile_lies_inside_its_bucket(self) -> None:
        assert percentile({}, 50) is None
        assert percentile({0: 10}, 50) == pytest.approx(BUCKET_BOUNDS_SECONDS[0] / 2)
        assert percentile({3: 50, 5: 50}, 50) == pytest.approx(BUCKET_BOUNDS_SECONDS[3])
        assert percentile({3: 50, 5: 50}, 75) == pytest.approx(
            (BUCKET_BOUNDS_SECONDS[4] + BUCKET_BOUNDS_SECONDS[5]) / 2
        )
        assert percentile({len(BUCKET_BOUNDS_SECONDS): 1}, 99) == BUCKET_BOUNDS_SECONDS[-1]

    def test_counters_are_summed_over_shards_channels_and_codes(self) -> None:
        now = timezone.now()
        for shard in (0, 1):
            make_counter(Measure.ATTEMPTS, 3, outcome=Outcome.SUCCESS, shard=shard)
        make_counter(Measure.ATTEMPTS, 4, outcome=Outcome.SUCCESS, channel="other")
        make_counter(Measure.ATTEMPTS, 5, outcome=Outcome.SUCCESS, bucket=7, error_code="odd")

        [read] = last_day(now).read_counters()

        assert read == ("attempts", "success", 0, 0, last_day(now).steps[-1], 15)

    def test_days_start_in_the_time_zone_of_the_reader(self) -> None:
        now = datetime(2026, 5, 10, 18, 30, tzinfo=UTC)  # in Shanghai the 11th has begun
        with timezone.override("Asia/Shanghai"):
            make_counter(Measure.ATTEMPTS, 1, hour=datetime(2026, 5, 10, 15, tzinfo=UTC), outcome=Outcome.SUCCESS)
            make_counter(Measure.ATTEMPTS, 2, hour=datetime(2026, 5, 10, 16, tzinfo=UTC), outcome=Outcome.SUCCESS)
            span = last_month(now)
            read = {row.step: row.number for row in span.read_counters()}

        assert [read[step] for step in span.steps[-2:]] == [1, 2]
        assert len(span.steps) == 30

    def test_older_counters_are_left_out(self) -> None:
        make_counter(Measure.ATTEMPTS, 9, hour=ago(hours=24), outcome=Outcome.SUCCESS)
        make_counter(Measure.ATTEMPTS, 9, hour=datetime(1970, 1, 1, tzinfo=UTC), outcome=Outcome.SUCCESS)

        assert last_day(timezone.now()).read_counters() == []

    def test_each_chart_has_a_description(self, admin_client: Client, alive: None) -> None:
        make_counter(Measure.ATTEMPTS, 1234, outcome=Outcome.SUCCESS)
        make_counter(Measure.DELIVERIES, 30, outcome=Status.SENT, attempts=1, bucket=4)
        make_counter(Measure.DELIVERIES, 3, outcome=Status.DEAD, attempts=5, bucket=14)
        make_counter(Measure.REPLAYS, 10, outcome=Status.SENT, attempts=9, bucket=17)

        overview, html = open_overview(admin_client)

        described = {chart.plot.name: chart.plot.description for chart in overview.charts}
        assert described["outcomes-day"] == described["outcomes-month"] == "delivered 1,234"
        assert described["times-day"].startswith("p50 75 ms; p95")
        assert described["attempts-day"] == "75.0% of the sent notifications took one attempt."
        assert dict(overview.charts[4].plot.rows)["6+"][0] == "10"
        assert html.count('role="img"') == 6

    def test_each_chart_has_title_description_and_table(self, admin_client: Client, alive: None) -> None:
        make_counter(Measure.ATTEMPTS, 5, outcome=Outcome.SUCCESS)
        make_counter(Measure.DELIVERIES, 5, outcome=Status.SENT, attempts=1, bucket=1)

        html = open_overview(admin_client)[1]

        drawings = re.findall(r"<svg viewBox.*?</svg>", html, re.DOTALL)
        assert len(drawings) == 6 == html.count("The numbers as a table")
        for drawing in drawings:
            svg = ElementTree.fromstring(drawing)  # noqa: S314  our own page
            texts = {element.attrib["id"] for element in svg if element.tag in ("title", "desc") and element.text}
            assert texts == set(svg.attrib["aria-labelledby"].split())
        assert "<script" not in re.sub(r'<script src="/static/admin[^>]*>', "", html.partition('id="content"')[2])

    def test_a_chart_without_numbers_is_not_drawn(self, admin_client: Client) -> None:
        html = open_overview(admin_client)[1]

        assert 'role="img"' not in html
        assert "Nothing was sent." in html


class TestGeometry:
    def plot(self, *values: list[float | None]) -> Plot:
        series = [Series(f"k{index}", f"label {index}", numbers) for index, numbers in enumerate(values)]
        steps = [str(index) for index in range(len(values[0]))]
        return Plot(
            name="n", title="t", description="d", step_label="s", steps=steps, series=series, format_value=format_number
        )

    def test_bars_are_stacked_inside_the_drawing(self) -> None:
        chart = build_bar_chart(self.plot([10, 0, 7], [30, 0, 0]))

        first, nothing, _last = chart.bars
        assert [float(box.height) for box in first.segments][1] == pytest.approx(
            3 * float(first.segments[0].height), abs=0.3
        )
        assert float(first.segments[1].y) + float(first.segments[1].height) == pytest.approx(
            float(first.segments[0].y), abs=0.2
        )
        assert float(first.segments[1].y) >= chart.top
        assert (nothing.segments, nothing.tooltip) == ([], "")
        assert first.tooltip == "0: label 0 10; label 1 30"

    def test_the_smallest_value_is_visible(self) -> None:
        assert float(build_bar_chart(self.plot([1_000_000, 1])).bars[1].segments[0].height) >= 1

    def test_a_line_has_a_gap_where_a_value_is_missing(self) -> None:
        chart = build_line_chart(self.plot([0.1, 0.2, None, 0.3, None, 50.0, 60.0]))

        [line] = chart.lines
        assert len(line.paths) == 2
        assert len(line.dots) == 5
        assert all(chart.top <= float(y) <= chart.bottom for _x, y in line.dots)

    def test_every_value_is_inside_the_drawing(self) -> None:
        for value in (0.0, 0.0001, 10_000_000.0, 1.0, None):
            chart = build_line_chart(self.plot([value]))

            assert all(chart.top <= float(y) <= chart.bottom for line in chart.lines for _x, y in line.dots), value
            assert len(chart.y_labels) >= 2, value

    def test_durations_have_the_unit_that_fits(self) -> None:
        for seconds, text in (
            (None, "–"),
            (0.0042, "4.2 ms"),
            (0.25, "250 ms"),
            (4.2, "4.2 s"),
            (90, "1.5 min"),
            (7200, "2 h"),
            (180_000, "2.1 d"),
        ):
            assert format_duration(seconds) == text, seconds


def test_each_colour_has_a_pattern_too() -> None:
    css = Path(str(finders.find("notifications/overview.css"))).read_text()

    fills = {kind for kind in (*Outcome.values, *Status.values) if re.search(rf"\.n-bar\.n-{kind}\b", css)}
    assert fills >= {*Outcome.values, "dead", "skipped"} - {"success", "sent"}


FILL_COUNTERS = """
INSERT INTO notification_tallies (hour, shard, channel, measure, outcome, error_code, attempts, bucket, count, seconds)
SELECT date_trunc('hour', now()) - hours * interval '1 hour', shard, 'feishu', measure, 'sent', '', 1, bucket, 5, 1
FROM generate_series(0, 40 * 24) AS hours, generate_series(0, 3) AS shard, generate_series(1, 6) AS bucket,
     unnest(array['attempts', 'deliveries', 'replays']) AS measure
"""
MAX_REMOVED_ROWS = 1000
"""Rows that a query may read and discard."""
SMALL_TABLES = {"notification_heartbeats"}
"""Tables that stay small."""
WHOLE_MONTH_QUERY = "date_trunc('day', hour"
"""Reads 30 of the 40 days that the table holds, so that reading the whole table is the fastest plan."""


def read_whole(queries: list[dict[str, str]]) -> list[str]:
    """Run each query again, and return those that read a table of ours from end to end, by an index or without."""
    whole = []
    with connection.cursor() as cursor:
        for query in queries:
            if not query["sql"].lstrip().upper().startswith(("SELECT", "WITH")) or WHOLE_MONTH_QUERY in query["sql"]:
                continue
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query["sql"])
            [answer] = cursor.fetchone()
            root = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
            read = {
                node["Relation Name"]
                for node in all_nodes(root)
                if node["Node Type"] == "Seq Scan" or node.get("Rows Removed by Filter", 0) > MAX_REMOVED_ROWS
                if "Relation Name" in node
            }
            if any(name.startswith(("notification_", "user_notification")) for name in read - SMALL_TABLES):
                whole.append(query["sql"])
    return whole


class TestFast:
    @pytest.fixture
    def many(self) -> None:
        """Far more rows than any page may read."""
        fill_table("done", "sent", 200_000, days=3)
        fill_table("old", "dead", 5000, days=3)
        fill_table("new", "dead", 50)
        fill_table("due", "pending", 500)
        with connection.cursor() as cursor:
            cursor.execute(FILL_COUNTERS)
            cursor.execute(
                "INSERT INTO user_notification_channels (user_id, channel, enabled, webhook_url, auth_type,"
                " bearer_token, pause_reason, last_test_status, last_test_error, updated_at)"
                " SELECT %s, 'c' || n, true, '', 'none', '', '', '', '', now() FROM generate_series(1, 20000) AS n",
                [User.objects.create(username="many").pk],
            )
            cursor.execute(
                "INSERT INTO notification_rejected_requests (source, payload, errors, created_at)"
                " SELECT 'x', '{}', '[]', now() - n * interval '1 hour' FROM generate_series(1, 20000) AS n"
            )
            for table in ("records", "tallies", "rejected_requests"):
                cursor.execute(f"ANALYZE notification_{table}")
            cursor.execute("ANALYZE user_notification_channels")

    def test_every_query_of_the_overview_uses_an_index(self, admin_client: Client, many: None) -> None:
        with CaptureQueriesContext(connection) as captured:
            overview, _html = open_overview(admin_client)

        assert [card.value for card in overview.record_cards][:1] == ["500"]
        assert len(captured) > 10
        assert read_whole(captured.captured_queries) == []

    def test_every_list_it_links_to_uses_an_index(self, admin_client: Client, many: None) -> None:
        for name in CURRENT_STATES:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(LIST, {"now": name}).status_code == 200

            assert read_whole(captured.captured_queries) == [], name

    def test_the_number_of_queries_does_not_grow_with_the_rows(self, admin_client: Client, alive: None) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                open_overview(admin_client)
            return len(captured)

        queries()
        before = queries()
        for number_ in range(30):
            make_record("failed", last_error_code=f"code-{number_}")

        assert queries() == before
        assert NotificationRecord.objects.count() == 30
