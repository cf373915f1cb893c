"""The overview tells an operator what is wrong, why, and what to press; and stays fast however many rows there are."""

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
from notifications.admin.overview import counts, server_status
from notifications.admin.overview.chart_geometry import Plot, Series, bars, lines
from notifications.admin.overview.charts import duration, number
from notifications.admin.overview.history import last_day, last_month, percentile
from notifications.models import Counter, Heartbeat, NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.states import HeartbeatKind, Measure, Outcome, Status
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS
from tests.integration.test_query_plan import fill, nodes
from tests.support.factories import LIST, make_record

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
    """Everything of ours that should run was heard of just now."""
    for name, kind in (
        ("w:1", HeartbeatKind.WORKER),
        ("w:2", HeartbeatKind.WORKER),
        ("beat", HeartbeatKind.BEAT),
        ("sweep", HeartbeatKind.SWEEP),
    ):
        Heartbeat.objects.create(name=name, kind=kind)


def look(client: Client) -> tuple[Any, str]:
    """Return what the page was made of, and the page."""
    response = client.get(URL)
    assert response.status_code == 200
    return response.context["overview"], response.content.decode()


def ago(**lengths: float) -> datetime:
    return timezone.now() - timedelta(**lengths)


def tally(measure: Measure, count: int, *, hour: datetime | None = None, **fields: Any) -> None:
    at = (hour or timezone.now()).replace(minute=0, second=0, microsecond=0)
    defaults = {
        "channel": "feishu",
        "shard": 0,
        "outcome": "",
        "error_code": "",
        "bucket": 0,
        "attempts": 0,
        "seconds": 0,
    }
    Counter.objects.create(measure=measure, hour=at, count=count, **(defaults | fields))


class TestWhoMayLook:
    def test_anonymous_is_sent_to_the_login(self, client: Client) -> None:
        assert client.get(URL)["Location"].startswith("/admin/login/")

    def test_who_may_not_view_notifications_gets_the_plain_index(self, browse: Callable[..., Client]) -> None:
        make_record()

        overview, html = look(browse("view_rejectedrequest"))

        assert overview is None
        assert "n-overview" not in html
        assert "/admin/notifications/rejectedrequest/" in html

    def test_each_block_is_for_who_may_view_what_it_counts(self, browse: Callable[..., Client], alive: None) -> None:
        user = User.objects.create(username="reader")
        UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())
        RejectedRequest.objects.create(source="x", payload="{}", errors=[])

        overview, html = look(browse("view_notificationrecord"))

        assert overview.needs == []
        assert "/admin/notifications/rejectedrequest/" not in html
        assert "/admin/notifications/usernotificationchannel/" not in html

    def test_the_whole_of_it_is_for_who_may_view_all(self, browse: Callable[..., Client], alive: None) -> None:
        overview, _html = look(browse(*VIEW))

        assert len(overview.figures) == len(CURRENT_STATES) - 1 + 2  # what vanished stands in a note


def test_the_page_is_chinese_for_a_chinese_browser(admin_client: Client) -> None:
    make_record("dead")

    html = admin_client.get(URL, headers={"accept-language": "zh-CN"}).content.decode()

    for text in ("件事需要您处理", "没有工作进程在运行", "查看投递失败的", "最近 24 小时", "从请求到送达的时间"):
        assert text in html
    for text in ("need you", "Show the dead", "last 24 hours", "as it should be", "Attempts per delivery"):
        assert text not in html


class TestNumbers:
    def test_each_counts_what_its_link_lists(self, admin_client: Client) -> None:
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

        for name, count in counts.count_records().items():
            listed = {record.pk for record in admin_client.get(count.url).context["cl"].result_list}
            due = ("due pending", "due failed", "vanished")
            assert listed == {made[one] for one in (due if name == "due" else (name,))}, name
            assert count.number == len(listed), name

    def test_each_situation_has_its_count(self) -> None:
        assert counts.count_records().keys() == CURRENT_STATES.keys()

    def test_failed_and_dead_are_told_apart_by_code_each_with_its_link(self, admin_client: Client) -> None:
        for code in ("provider_5xx", "provider_5xx", "network_error"):
            make_record("failed", last_error_code=code)

        found = counts.count_records()["retry"]

        assert [(part.code, part.number) for part in found.parts] == [("provider_5xx", 2), ("network_error", 1)]
        assert len(admin_client.get(found.parts[0].url).context["cl"].result_list) == 2
        assert f'href="{found.parts[0].url.replace("&", "&amp;")}"' in look(admin_client)[1]

    def test_counting_ends_where_more_would_say_no_more(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(counts, "MOST", 3)
        for _ in range(5):
            make_record("dead")

        overview, html = look(admin_client)

        assert "at least 3" in html
        assert sum(part.number for figure in overview.figures for part in figure.parts) == 3

    def test_what_came_and_what_is_paused_is_counted_with_its_link(self, admin_client: Client) -> None:
        user = User.objects.create(username="reader")
        UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())
        UserNotificationChannel.objects.create(user=User.objects.create(username="other"))
        for hours in (1, 25):
            RejectedRequest.objects.create(source="x", payload="{}", errors=[], created_at=ago(hours=hours))

        for count in (counts.count_rejected(), counts.count_paused()):
            assert count.number == 1
            assert len(admin_client.get(count.url).context["cl"].result_list) == 1


class TestNeeds:
    def test_all_well_says_so(self, admin_client: Client, alive: None) -> None:
        make_record("sent")
        make_record("pending", next_attempt_at=ago(seconds=1))

        overview, html = look(admin_client)

        assert overview.needs == []
        assert "All well" in html

    @pytest.mark.parametrize(
        ("words", "press"),
        [
            ("no worker is running", ""),
            ("beat is silent", ""),
            ("2 are due and not sent; the oldest was due 10\xa0minutes ago", "now=due"),
            (
                "1 was not delivered in the last 24 hours and is not tried again. 1 of them: provider_config.",
                "now=dead",
            ),
            ("33 % of the attempts", "now=retry"),
            ("1 request was refused", "rejectedrequest/?now=day"),
            ("1 channel is paused", "paused_at__isempty=0"),
            ("a channel that has no provider: pigeon", "now=due"),
            ("Redis does not answer", ""),
        ],
    )
    def test_each_trouble_is_said_with_what_to_press(
        self, admin_client: Client, alive: None, change: Callable[..., None], words: str, press: str
    ) -> None:
        self.trouble(words, change)

        overview, html = look(admin_client)

        [need] = overview.needs
        assert words in need.what
        assert need.do
        assert press in need.url
        assert "1 thing needs you" in html
        assert bool(need.url) == bool(need.button)

    def trouble(self, words: str, change: Callable[..., None]) -> None:
        """Bring about the one thing that the words are about."""
        match words.split()[0], words.split()[1]:
            case "no", "worker":
                Heartbeat.objects.exclude(kind=HeartbeatKind.BEAT).update(seen_at=ago(minutes=10))
            case "beat", _:
                Heartbeat.objects.filter(kind=HeartbeatKind.BEAT).delete()
            case "2", "are":
                for minutes in (10, 5):
                    make_record("pending", next_attempt_at=ago(minutes=minutes, seconds=5))
            case "1", "was":
                make_record("dead")
            case "33", _:
                tally(Measure.ATTEMPTS, 20, outcome=Outcome.SUCCESS)
                tally(Measure.ATTEMPTS, 10, outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx")
            case "1", "request":
                RejectedRequest.objects.create(source="x", payload="{}", errors=[])
            case "1", "channel":
                user = User.objects.create(username="reader")
                UserNotificationChannel.objects.create(user=user, paused_at=timezone.now())
            case "a", "channel":
                make_record("pending", channel="pigeon", next_attempt_at=ago(seconds=1))
            case _:
                change(REDIS_URL="redis://127.0.0.1:1/0")

    def test_a_few_failures_are_no_trouble(self, admin_client: Client, alive: None) -> None:
        tally(Measure.ATTEMPTS, 5, outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx")

        assert look(admin_client)[0].needs == []

    def test_the_gravest_comes_first(self, admin_client: Client) -> None:
        make_record("dead")

        overview, html = look(admin_client)

        assert ["no worker" in need.what for need in overview.needs] == [True, False]
        assert "2 things need you" in html

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            ({"read_only": True}, "takes no writes"),
            ({"connections": 95}, "soon refuses connections: 95 of 100"),
            ({"milliseconds": 900.0}, "took 900 ms"),
        ],
    )
    def test_a_sick_postgresql_is_said(
        self, admin_client: Client, alive: None, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], words: str
    ) -> None:
        fine: dict[str, Any] = {"milliseconds": 1.0, "connections": 5, "allowed": 100, "read_only": False}
        sick = server_status.Postgres(**(fine | state))
        monkeypatch.setattr("notifications.admin.overview.ask_postgres", lambda: sick)

        [need] = look(admin_client)[0].needs

        assert words in need.what


class TestHistory:
    def test_a_percentile_lies_inside_its_bucket(self) -> None:
        assert percentile({}, 50) is None
        assert percentile({0: 10}, 50) == pytest.approx(BUCKET_BOUNDS_SECONDS[0] / 2)
        assert percentile({3: 50, 5: 50}, 50) == pytest.approx(BUCKET_BOUNDS_SECONDS[3])
        assert percentile({3: 50, 5: 50}, 75) == pytest.approx(
            (BUCKET_BOUNDS_SECONDS[4] + BUCKET_BOUNDS_SECONDS[5]) / 2
        )
        assert percentile({len(BUCKET_BOUNDS_SECONDS): 1}, 99) == BUCKET_BOUNDS_SECONDS[-1]

    def test_shards_channels_and_what_is_not_asked_for_are_summed_up(self) -> None:
        now = timezone.now()
        for shard in (0, 1):
            tally(Measure.ATTEMPTS, 3, outcome=Outcome.SUCCESS, shard=shard)
        tally(Measure.ATTEMPTS, 4, outcome=Outcome.SUCCESS, channel="other")
        tally(Measure.ATTEMPTS, 5, outcome=Outcome.SUCCESS, bucket=7, error_code="odd")

        [read] = last_day(now).read()

        assert read == (last_day(now).steps[-1], "attempts", "success", 0, 0, 15)

    def test_days_are_the_readers(self) -> None:
        now = datetime(2026, 5, 10, 18, 30, tzinfo=UTC)  # in Shanghai the 11th has begun
        with timezone.override("Asia/Shanghai"):
            tally(Measure.ATTEMPTS, 1, hour=datetime(2026, 5, 10, 15, tzinfo=UTC), outcome=Outcome.SUCCESS)
            tally(Measure.ATTEMPTS, 2, hour=datetime(2026, 5, 10, 16, tzinfo=UTC), outcome=Outcome.SUCCESS)
            span = last_month(now)
            read = {row.step: row.number for row in span.read()}

        assert [read[step] for step in span.steps[-2:]] == [1, 2]
        assert len(span.steps) == 30

    def test_what_is_older_is_left_out(self) -> None:
        tally(Measure.ATTEMPTS, 9, hour=ago(hours=24), outcome=Outcome.SUCCESS)
        tally(Measure.ATTEMPTS, 9, hour=datetime(1970, 1, 1, tzinfo=UTC), outcome=Outcome.SUCCESS)

        assert last_day(timezone.now()).read() == []

    def test_the_charts_say_their_numbers_in_words(self, admin_client: Client, alive: None) -> None:
        tally(Measure.ATTEMPTS, 1234, outcome=Outcome.SUCCESS)
        tally(Measure.DELIVERIES, 30, outcome=Status.SENT, attempts=1, bucket=4)
        tally(Measure.DELIVERIES, 3, outcome=Status.DEAD, attempts=5, bucket=14)
        tally(Measure.REPLAYS, 10, outcome=Status.SENT, attempts=9, bucket=17)

        overview, html = look(admin_client)

        described = {chart.plot.name: chart.plot.description for chart in overview.charts}
        assert described["outcomes-day"] == described["outcomes-month"] == "delivered 1\u202f234"
        assert described["times-day"].startswith("p50 75 ms; p95")
        assert described["attempts-day"] == "75.0 % of what was sent took one attempt."
        assert dict(overview.charts[4].plot.rows)["6+"][0] == "10"
        assert html.count('role="img"') == 6

    def test_each_drawing_has_title_description_and_a_table(self, admin_client: Client, alive: None) -> None:
        tally(Measure.ATTEMPTS, 5, outcome=Outcome.SUCCESS)
        tally(Measure.DELIVERIES, 5, outcome=Status.SENT, attempts=1, bucket=1)

        html = look(admin_client)[1]

        drawings = re.findall(r"<svg viewBox.*?</svg>", html, re.DOTALL)
        assert len(drawings) == 6 == html.count("The numbers as a table")
        for drawing in drawings:
            svg = ElementTree.fromstring(drawing)  # noqa: S314  our own page
            texts = {found.attrib["id"] for found in svg if found.tag in ("title", "desc") and found.text}
            assert texts == set(svg.attrib["aria-labelledby"].split())
        assert "<script" not in re.sub(r'<script src="/static/admin[^>]*>', "", html.partition('id="content"')[2])

    def test_nothing_counted_draws_nothing(self, admin_client: Client) -> None:
        html = look(admin_client)[1]

        assert 'role="img"' not in html
        assert "Nothing was sent." in html


class TestGeometry:
    def plot(self, *values: list[float | None]) -> Plot:
        series = [Series(f"k{index}", f"label {index}", one) for index, one in enumerate(values)]
        steps = [str(index) for index in range(len(values[0]))]
        return Plot(name="n", title="t", description="d", steps_are="s", steps=steps, series=series, words=number)

    def test_bars_pile_up_to_their_sum_within_the_drawing(self) -> None:
        chart = bars(self.plot([10, 0, 7], [30, 0, 0]))

        first, nothing, _last = chart.bars
        assert [float(box.height) for box in first.boxes][1] == pytest.approx(3 * float(first.boxes[0].height), abs=0.3)
        assert float(first.boxes[1].y) + float(first.boxes[1].height) == pytest.approx(float(first.boxes[0].y), abs=0.2)
        assert float(first.boxes[1].y) >= chart.top
        assert (nothing.boxes, nothing.says) == ([], "")
        assert first.says == "0: label 0 10; label 1 30"

    def test_the_least_shows_beside_the_most(self) -> None:
        assert float(bars(self.plot([1_000_000, 1])).bars[1].boxes[0].height) >= 1

    def test_a_line_is_broken_where_nothing_is_known(self) -> None:
        chart = lines(self.plot([0.1, 0.2, None, 0.3, None, 50.0, 60.0]))

        [line] = chart.lines
        assert len(line.paths) == 2
        assert len(line.dots) == 5
        assert all(chart.top <= float(y) <= chart.bottom for _x, y in line.dots)

    @pytest.mark.parametrize("values", [[0.0], [0.0001], [10_000_000.0], [1.0], [None]])
    def test_any_value_has_its_place(self, values: list[float | None]) -> None:
        chart = lines(self.plot(values))

        assert all(chart.top <= float(y) <= chart.bottom for line in chart.lines for _x, y in line.dots)
        assert len(chart.y_marks) >= 2

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (None, "–"),
            (0.0042, "4.2 ms"),
            (0.25, "250 ms"),
            (4.2, "4.2 s"),
            (90, "1.5 min"),
            (7200, "2 h"),
            (180_000, "2.1 d"),
        ],
    )
    def test_durations_are_said_in_the_unit_that_fits(self, seconds: float | None, text: str) -> None:
        assert duration(seconds) == text


def test_what_a_colour_says_a_pattern_says_too() -> None:
    css = Path(str(finders.find("notifications/overview.css"))).read_text()

    fills = {kind for kind in (*Outcome.values, *Status.values) if re.search(rf"\.n-bar\.n-{kind}\b", css)}
    assert fills >= {*Outcome.values, "dead", "skipped"} - {"success", "sent"}


FILL_TALLIES = """
INSERT INTO notification_tallies (hour, shard, channel, measure, outcome, error_code, attempts, bucket, count, seconds)
SELECT date_trunc('hour', now()) - hours * interval '1 hour', shard, 'feishu', measure, 'sent', '', 1, bucket, 5, 1
FROM generate_series(0, 40 * 24) AS hours, generate_series(0, 3) AS shard, generate_series(1, 6) AS bucket,
     unnest(array['attempts', 'deliveries', 'replays']) AS measure
"""
MOST_REMOVED = 1000
"""Rows that a query may look at and not want."""
SMALL = {"notification_heartbeats"}
"""Tables that stay small."""
MOST_OF_IT = "date_trunc('day', hour"
"""The last 30 days of a table that holds 40 (tallies.KEEP_DAYS): reading all of it is the shortest way."""


def read_whole(queries: list[dict[str, str]]) -> list[str]:
    """Run each query again, and return those that read a table of ours from end to end, by an index or without."""
    whole = []
    with connection.cursor() as cursor:
        for query in queries:
            if not query["sql"].lstrip().upper().startswith(("SELECT", "WITH")) or MOST_OF_IT in query["sql"]:
                continue
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query["sql"])
            [answer] = cursor.fetchone()
            root = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
            read = {
                node["Relation Name"]
                for node in nodes(root)
                if node["Node Type"] == "Seq Scan" or node.get("Rows Removed by Filter", 0) > MOST_REMOVED
                if "Relation Name" in node
            }
            if any(name.startswith(("notification_", "user_notification")) for name in read - SMALL):
                whole.append(query["sql"])
    return whole


class TestFast:
    @pytest.fixture
    def many(self) -> None:
        """Far more rows than any page may read."""
        fill("done", "sent", 200_000, days=3)
        fill("old", "dead", 5000, days=3)
        fill("new", "dead", 50)
        fill("due", "pending", 500)
        with connection.cursor() as cursor:
            cursor.execute(FILL_TALLIES)
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
            overview, _html = look(admin_client)

        assert [figure.value for figure in overview.figures][:1] == ["500"]
        assert len(captured) > 10
        assert read_whole(captured.captured_queries) == []

    @pytest.mark.parametrize("name", CURRENT_STATES)
    def test_every_list_it_leads_to_uses_an_index(self, admin_client: Client, many: None, name: str) -> None:
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(LIST, {"now": name}).status_code == 200

        assert read_whole(captured.captured_queries) == []

    def test_the_number_of_queries_does_not_grow_with_the_rows(self, admin_client: Client, alive: None) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                look(admin_client)
            return len(captured)

        queries()
        before = queries()
        for number_ in range(30):
            make_record("failed", last_error_code=f"code-{number_}")

        assert queries() == before
        assert NotificationRecord.objects.count() == 30
