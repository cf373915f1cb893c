"""The promise, on real workers, beat and web started by the Procfile's own commands."""

from __future__ import annotations

import http.client
import json
import threading

import pytest

from dev.other_app import other_app
from dev.ports import free_port
from dev.waiting import wait_until
from tests.support.alert_bot import AlertBot
from tests.support.environment import ProjectEnvironment
from tests.support.payloads import payload_of

pytestmark = pytest.mark.acceptance


def test_a_committed_request_reaches_the_endpoint_and_a_rolled_back_one_does_not(
    environment: ProjectEnvironment,
) -> None:
    environment.start_worker()
    user, _key = environment.add_user()

    [sent] = environment.request(user, "committed")
    environment.run(
        "from django.db import transaction\n"
        "from notifications.api import request_notification\n"
        "from tests.support.payloads import payload_of\n"
        "try:\n"
        "    with transaction.atomic():\n"
        f"        request_notification(payload_of({user}, 'rolled back'))\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    pass"
    )

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {sent: 1}
    assert environment.statuses() == {"sent": 1}


def test_an_event_of_another_celery_app_is_delivered_and_its_duplicate_is_not(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)

    for _ in range(2):
        other.send_task("notification.feishu.requested", args=[payload_of(user, "k")], queue="notifications")
    other.send_task("notification.feishu.requested", args=[payload_of(user, "bad", user_id=0)], queue="notifications")

    wait_until(lambda: environment.rows("SELECT 1 FROM notification_rejected_requests"), "the bad event is kept")
    environment.wait_for_status("sent", 1)
    assert list(environment.sends().values()) == [1]


def test_a_failure_is_retried_by_beat(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    user, key = environment.add_user("status:503", "rate-limit:1", "ok")

    environment.request(user, "k")
    environment.sandbox.wait_for(1, 60, key=key)
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert [delivery.answer for delivery in environment.sandbox.deliveries(key=key)] == [
        "status:503",
        "rate-limit:1",
        "ok",
    ]
    assert environment.rows("SELECT number, cause, outcome FROM notification_delivery_attempts ORDER BY 1") == [
        (1, "event", "temporary_fail"),
        (2, "sweep", "temporary_fail"),
        (3, "sweep", "success"),
    ]


def test_a_worker_killed_in_mid_send_is_recovered_after_its_lease(environment: ProjectEnvironment) -> None:
    worker = environment.start_worker()
    user, key = environment.add_user("hold", "ok")
    [record] = environment.request(user, "k")
    environment.sandbox.wait_for(1, 60, key=key)

    worker.kill()
    environment.start_worker()
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert len(environment.sandbox.deliveries(notification_id=record)) == 2  # the one in the air, and its repetition
    assert environment.rows("SELECT number, cause, outcome FROM notification_delivery_attempts ORDER BY 1") == [
        (1, "event", "lost"),
        (2, "recovery", "success"),
    ]


def test_a_worker_told_to_stop_finishes_what_is_in_flight(environment: ProjectEnvironment) -> None:
    worker = environment.start_worker()
    user, key = environment.add_user("hold")
    environment.request(user, "k")
    environment.sandbox.wait_for(1, 60, key=key)

    release = threading.Timer(0.5, environment.sandbox.release, [key])
    release.start()
    status = worker.terminate(30)

    release.join()
    assert status == 0
    assert environment.statuses() == {"sent": 1}


def test_redis_stopped_and_started_costs_time_and_nothing_else(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    environment.request(user, "before")
    environment.wait_for_status("sent", 1)

    environment.valkey.kill()
    during = environment.request(user, "during-1", "during-2")
    done = environment.manage("deliver_due")
    environment.valkey.start()
    after = environment.request(user, "after")

    assert done.returncode == 0, done.stderr
    environment.wait_for_status("sent", 4)
    assert {record: environment.sends()[record] for record in during + after} == dict.fromkeys(during + after, 1)


def test_a_worker_whose_database_connections_are_cut_goes_on_with_new_ones(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)

    def send_events(name: str) -> None:
        for number in range(8):  # more than the worker has threads, so that each has had a connection
            other.send_task(
                "notification.feishu.requested", args=[payload_of(user, f"{name}-{number}")], queue="notifications"
            )

    send_events("before")
    environment.wait_for_status("sent", 8)

    environment.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    send_events("after")
    environment.request(user, "by the api")

    environment.wait_for_status("sent", 17)
    assert set(environment.sends().values()) == {1}


def test_a_lost_message_is_found_by_the_sweep(environment: ProjectEnvironment) -> None:
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    environment.run(
        "import os, redis\n"
        "result = redis.Redis.from_url(os.environ['REDIS_URL']).flushall()"
    )  # fmt: skip

    environment.start_worker()
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {record: 1}


def test_some_thousand_notifications_survive_kills_of_workers_and_valkey(environment: ProjectEnvironment) -> None:
    workers = [environment.start_worker(), environment.start_worker()]
    environment.start("beat")
    users = [environment.add_user()[0] for _ in range(3)]
    records: list[int] = []
    for number, user in enumerate(users):
        records += environment.request(user, *(f"{number}-{key}" for key in range(700)))
        wait_until(lambda: environment.statuses().get("sent", 0) > 100, "some are out")
        workers.pop(0).kill()
        if number == 1:
            environment.valkey.kill()
            environment.valkey.start()
        workers.append(environment.start_worker())

    environment.wait_for_status("sent", len(records))
    sends = environment.sends()
    lost = dict(
        environment.rows(
            "SELECT record_id, count(*) FROM notification_delivery_attempts WHERE outcome = 'lost' GROUP BY 1"
        )
    )
    assert sends.keys() == set(records)
    # Twice only where a worker died between the receiver's answer and our commit.
    assert all(times <= 1 + lost.get(record, 0) for record, times in sends.items())


def test_the_web_process_serves_the_login_page(environment: ProjectEnvironment) -> None:
    port = free_port()
    environment.start("web", PORT=str(port))

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


def test_log_lines_are_json_and_hold_every_fact_and_no_secret(environment: ProjectEnvironment) -> None:
    worker = environment.start_worker()
    user, key = environment.add_user("status:500")
    [record] = environment.request(user, "k")
    environment.wait_for_status("failed", 1)

    lines = [line for line in wait_until(lambda: worker.log, "a log").splitlines() if "delivery.attempted" in line]
    facts = json.loads(lines[0])
    assert (facts["record_id"], facts["user_id"], facts["attempt"], facts["max_attempts"]) == (record, user, 1, 5)
    assert (facts["outcome"], facts["status"], facts["error_code"]) == ("temporary_fail", "failed", "provider_5xx")
    assert (facts["http_status"], facts["settled"], facts["cause"]) == (500, True, "event")
    assert facts.keys() >= {"duration_ms", "retry_in_s", "worker", "trace_id", "dedupe_key", "channel", "time"}
    assert key not in worker.log


def test_the_database_knows_which_processes_are_alive(environment: ProjectEnvironment) -> None:
    def workers() -> int:
        [[count]] = environment.rows(
            "SELECT count(*) FROM notification_heartbeats"
            " WHERE kind = 'worker' AND seen_at > statement_timestamp() - interval '1 minute'"
        )
        return int(count)

    worker = environment.start_worker()
    other = environment.start_worker(WORKER_NAME="other")
    environment.start("beat")

    wait_until(lambda: workers() == 2, "two workers were heard of")
    wait_until(
        lambda: {("beat",), ("sweep",)} <= set(environment.rows("SELECT name FROM notification_heartbeats")),
        "beat and sweep were heard of",
    )

    worker.terminate()
    assert workers() == 1
    other.kill()
    assert workers() == 1  # it could not take leave; a minute later it counts no more


def test_beat_and_a_worker_tell_a_person_what_died(environment: ProjectEnvironment) -> None:
    bot = AlertBot()
    try:
        options = bot.options
        environment.env["NOTIFICATIONS_ALERT_FEISHU_WEBHOOK"] = options["ALERT_FEISHU_WEBHOOK"]
        environment.env["NOTIFICATIONS_SANDBOX_ORIGINS"] += f",{bot.origin}"
        user, _key = environment.add_user("code:9499")
        environment.start_worker()
        environment.start_worker(WORKER_NAME="other")
        environment.start("beat")
        environment.request(user, "k")
        environment.wait_for_status("dead", 1)

        wait_until(lambda: bot.texts, "somebody was told")
        seen = "SELECT last_seen FROM notification_alerts WHERE sink = 'feishu'"
        before = environment.rows(seen)
        wait_until(lambda: environment.rows(seen) > before, "somebody looked again")
    finally:
        bot.close()

    assert len(bot.texts) == 1
    assert "became dead: payload_invalid" in bot.texts[0]
