"""The promise, on real workers, beat and web started by the Procfile's own commands."""

from __future__ import annotations

import http.client
import json
import threading

import pytest

from dev.other_app import other_app
from dev.ports import free_port
from tests.support.alert_bot import AlertBot
from tests.support.environment import Site, payload, wait_until

pytestmark = pytest.mark.acceptance


def test_a_committed_request_reaches_the_endpoint_and_a_rolled_back_one_does_not(site: Site) -> None:
    site.start_worker()
    user, _key = site.add_user()

    [sent] = site.request(user, "committed")
    site.run(
        "from django.db import transaction\n"
        "from notifications.api import request_notification\n"
        "from tests.support.environment import payload\n"
        "try:\n"
        "    with transaction.atomic():\n"
        f"        request_notification(payload({user}, 'rolled back'))\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    pass"
    )

    site.wait_for_status("sent", 1)
    assert site.sends() == {sent: 1}
    assert site.statuses() == {"sent": 1}


def test_an_event_of_another_celery_app_is_delivered_and_its_duplicate_is_not(site: Site) -> None:
    site.start_worker()
    user, _key = site.add_user()
    other = other_app(site.valkey.url)

    for _ in range(2):
        other.send_task("notification.feishu.requested", args=[payload(user, "k")], queue="notifications")
    other.send_task("notification.feishu.requested", args=[payload(user, "bad", user_id=0)], queue="notifications")

    wait_until(lambda: site.rows("SELECT 1 FROM notification_rejected_requests"), "the bad event is kept")
    site.wait_for_status("sent", 1)
    assert list(site.sends().values()) == [1]


def test_a_failure_is_retried_by_beat(site: Site) -> None:
    site.start_worker()
    user, key = site.add_user("status:503", "rate-limit:1", "ok")

    site.request(user, "k")
    site.sandbox.wait_for(1, 60, key=key)
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert [delivery.answer for delivery in site.sandbox.deliveries(key=key)] == ["status:503", "rate-limit:1", "ok"]
    assert site.rows("SELECT number, cause, outcome FROM notification_delivery_attempts ORDER BY 1") == [
        (1, "event", "temporary_fail"),
        (2, "sweep", "temporary_fail"),
        (3, "sweep", "success"),
    ]


def test_a_worker_killed_in_mid_send_is_recovered_after_its_lease(site: Site) -> None:
    worker = site.start_worker()
    user, key = site.add_user("hold", "ok")
    [record] = site.request(user, "k")
    site.sandbox.wait_for(1, 60, key=key)

    worker.kill()
    site.start_worker()
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert len(site.sandbox.deliveries(notification_id=record)) == 2  # the one in the air, and its repetition
    assert site.rows("SELECT number, cause, outcome FROM notification_delivery_attempts ORDER BY 1") == [
        (1, "event", "lost"),
        (2, "recovery", "success"),
    ]


def test_a_worker_told_to_stop_finishes_what_is_in_flight(site: Site) -> None:
    worker = site.start_worker()
    user, key = site.add_user("hold")
    site.request(user, "k")
    site.sandbox.wait_for(1, 60, key=key)

    release = threading.Timer(0.5, site.sandbox.release, [key])
    release.start()
    status = worker.terminate(30)

    release.join()
    assert status == 0
    assert site.statuses() == {"sent": 1}


def test_redis_stopped_and_started_costs_time_and_nothing_else(site: Site) -> None:
    site.start_worker()
    site.start("beat")
    user, _key = site.add_user()
    site.request(user, "before")
    site.wait_for_status("sent", 1)

    site.valkey.kill()
    during = site.request(user, "during-1", "during-2")
    done = site.manage("deliver_due")
    site.valkey.start()
    after = site.request(user, "after")

    assert done.returncode == 0, done.stderr
    site.wait_for_status("sent", 4)
    assert {record: site.sends()[record] for record in during + after} == dict.fromkeys(during + after, 1)


def test_a_worker_whose_database_connections_are_cut_goes_on_with_new_ones(site: Site) -> None:
    site.start_worker()
    site.start("beat")
    user, _key = site.add_user()
    other = other_app(site.valkey.url)

    def send_events(name: str) -> None:
        for number in range(8):  # more than the worker has threads, so that each has had a connection
            other.send_task(
                "notification.feishu.requested", args=[payload(user, f"{name}-{number}")], queue="notifications"
            )

    send_events("before")
    site.wait_for_status("sent", 8)

    site.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    send_events("after")
    site.request(user, "by the api")

    site.wait_for_status("sent", 17)
    assert set(site.sends().values()) == {1}


def test_a_lost_message_is_found_by_the_sweep(site: Site) -> None:
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    site.run(
        "import os, redis\n"
        "result = redis.Redis.from_url(os.environ['REDIS_URL']).flushall()"
    )  # fmt: skip

    site.start_worker()
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert site.sends() == {record: 1}


def test_some_thousand_notifications_survive_kills_of_workers_and_valkey(site: Site) -> None:
    workers = [site.start_worker(), site.start_worker()]
    site.start("beat")
    users = [site.add_user()[0] for _ in range(3)]
    records: list[int] = []
    for number, user in enumerate(users):
        records += site.request(user, *(f"{number}-{key}" for key in range(700)))
        wait_until(lambda: site.statuses().get("sent", 0) > 100, "some are out")
        workers.pop(0).kill()
        if number == 1:
            site.valkey.kill()
            site.valkey.start()
        workers.append(site.start_worker())

    site.wait_for_status("sent", len(records))
    sends = site.sends()
    lost = dict(
        site.rows("SELECT record_id, count(*) FROM notification_delivery_attempts WHERE outcome = 'lost' GROUP BY 1")
    )
    assert sends.keys() == set(records)
    # Twice only where a worker died between the receiver's answer and our commit.
    assert all(times <= 1 + lost.get(record, 0) for record, times in sends.items())


def test_the_web_process_serves_the_login_page(site: Site) -> None:
    port = free_port()
    site.start("web", PORT=str(port))

    def answer() -> tuple[int, str] | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/admin/login/", headers={"Accept-Language": "zh-CN"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            return None
        finally:
            connection.close()

    answered = wait_until(answer, "the web process answers")
    assert answered
    status, page = answered
    assert status == 200
    assert "登录" in page


def test_log_lines_are_json_and_hold_every_fact_and_no_secret(site: Site) -> None:
    worker = site.start_worker()
    user, key = site.add_user("status:500")
    [record] = site.request(user, "k")
    site.wait_for_status("failed", 1)

    lines = [line for line in wait_until(lambda: worker.log, "a log").splitlines() if "delivery.attempted" in line]
    facts = json.loads(lines[0])
    assert (facts["record_id"], facts["user_id"], facts["attempt"], facts["max_attempts"]) == (record, user, 1, 5)
    assert (facts["outcome"], facts["status"], facts["error_code"]) == ("temporary_fail", "failed", "provider_5xx")
    assert (facts["http_status"], facts["settled"], facts["cause"]) == (500, True, "event")
    assert facts.keys() >= {"duration_ms", "retry_in_s", "worker", "trace_id", "dedupe_key", "channel", "time"}
    assert key not in worker.log


def test_the_database_knows_which_processes_are_alive(site: Site) -> None:
    def workers() -> int:
        [[count]] = site.rows(
            "SELECT count(*) FROM notification_heartbeats"
            " WHERE kind = 'worker' AND seen_at > statement_timestamp() - interval '1 minute'"
        )
        return int(count)

    worker = site.start_worker()
    other = site.start_worker(WORKER_NAME="other")
    site.start("beat")

    wait_until(lambda: workers() == 2, "two workers were heard of")
    wait_until(
        lambda: {("beat",), ("sweep",)} <= set(site.rows("SELECT name FROM notification_heartbeats")),
        "beat and sweep were heard of",
    )

    worker.terminate()
    assert workers() == 1
    other.kill()
    assert workers() == 1  # it could not take leave; a minute later it counts no more


def test_beat_and_a_worker_tell_a_person_what_died(site: Site) -> None:
    bot = AlertBot()
    try:
        options = bot.options
        site.env["NOTIFICATIONS_ALERT_FEISHU_WEBHOOK"] = options["ALERT_FEISHU_WEBHOOK"]
        site.env["NOTIFICATIONS_SANDBOX_ORIGINS"] += f",{bot.origin}"
        user, _key = site.add_user("code:9499")
        site.start_worker()
        site.start_worker(WORKER_NAME="other")
        site.start("beat")
        site.request(user, "k")
        site.wait_for_status("dead", 1)

        wait_until(lambda: bot.texts, "somebody was told")
        seen = "SELECT last_seen FROM notification_alerts WHERE sink = 'feishu'"
        before = site.rows(seen)
        wait_until(lambda: site.rows(seen) > before, "somebody looked again")
    finally:
        bot.close()

    assert len(bot.texts) == 1
    assert "became dead: payload_invalid" in bot.texts[0]
