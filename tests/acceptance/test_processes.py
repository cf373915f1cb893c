"""Delivery with real worker, beat and web processes, started by the commands of the Procfile."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from typing import Any

import pytest

from dev.other_app import other_app
from dev.ports import free_port
from dev.waiting import wait_until
from tests.support.alert_bot import AlertBot
from tests.support.environment import ProjectEnvironment
from tests.support.payloads import payload_of

pytestmark = pytest.mark.acceptance


def test_committed_request_is_sent_and_rolled_back_request_is_not(
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


def test_event_of_another_celery_app_is_sent_once_despite_a_duplicate(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)

    for _ in range(2):
        other.send_task("notification.feishu.requested", args=[payload_of(user, "k")], queue="notifications")
    other.send_task("notification.feishu.requested", args=[payload_of(user, "bad", user_id=0)], queue="notifications")

    wait_until(lambda: environment.rows("SELECT 1 FROM notification_rejected_requests"), "the invalid event is stored")
    environment.wait_for_status("sent", 1)
    assert list(environment.sends().values()) == [1]


def test_event_that_celery_cannot_decode_is_kept_as_a_rejected_request(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)
    bad = [
        {"user_id": 1, "extra": {"__type__": "order", "__value__": 5}},
        {"__type__": "datetime", "__value__": "yesterday"},
        {"user_id": 1, "list": [{"__type__": "bytes", "__value__": 7}]},
    ]

    for payload in bad:
        other.send_task("notification.feishu.requested", args=[payload], queue="notifications")
    other.send_task("notification.feishu.requested", args=[payload_of(user, "k")], queue="notifications")

    environment.wait_for_status("sent", 1)
    kept = "SELECT payload, errors FROM notification_rejected_requests ORDER BY payload"
    wait_until(lambda: len(environment.rows(kept)) == len(bad), "each is stored")
    rows = environment.rows(kept)
    assert sorted(json.dumps(json.loads(payload)) for payload, _errors in rows) == sorted(map(json.dumps, bad))
    assert {error["field"] for _payload, errors in rows for error in errors} == {"payload"}


def test_event_that_celery_cannot_read_is_kept_and_stops_no_worker(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)
    name = "notification.feishu.requested"
    bad_type = {"__type__": "order", "__value__": 5}
    headers = {"id": "1", "task": name}
    messages: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "a number as the body": (5, headers, "5"),
        "null as the body": (None, headers, "null"),
        "two parts instead of three": ([[{"a": 1}], {}], headers, {"a": 1}),
        "a text as the body": ("abc", headers, '"abc"'),
        "a number as the arguments": ([7, {}, {}], headers, "[7, {}, {}]"),
        "no id": ([[{"a": 2}], {}, {}], {"task": name}, {"a": 2}),
        "a time that is none": ([[{"a": 3}], {}, {}], {**headers, "eta": "never"}, {"a": 3}),
        "protocol 1, a type that Celery cannot decode": ({"task": name, "id": "1", "args": [bad_type]}, {}, bad_type),
        "protocol 1, no id": ({"task": name, "args": [{"a": 4}], "kwargs": {}}, {}, {"a": 4}),
        "protocol 1, a list of keyword arguments": (
            {"task": name, "id": "1", "args": [{"a": 5}], "kwargs": [1]},
            {},
            {"args": [{"a": 5}], "kwargs": [1]},
        ),
    }

    with other.connection() as connection, connection.SimpleQueue("notifications") as queue:
        for body, message_headers, _kept in messages.values():
            queue.put(
                json.dumps(body), headers=message_headers, content_type="application/json", content_encoding="utf-8"
            )
    other.send_task(name, args=[payload_of(user, "k")], queue="notifications")

    environment.wait_for_status("sent", 1)
    kept = "SELECT payload FROM notification_rejected_requests"
    wait_until(
        lambda: len(environment.rows(kept)) >= len(messages), lambda: f"each is stored, not {environment.rows(kept)}"
    )
    stored = [json.loads(payload) for (payload,) in environment.rows(kept)]
    for case, (_body, _headers, payload) in messages.items():
        assert payload in stored, (case, stored)


def test_arguments_of_events_are_in_no_event_of_the_worker(environment: ProjectEnvironment) -> None:
    environment.start_worker(CELERY_REMOTE_CONTROL="true")
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)
    received: list[dict[str, Any]] = []

    def receive() -> list[dict[str, Any]]:
        with contextlib.suppress(TimeoutError):
            live.drain_events(timeout=1)
        return received

    def receive_task() -> list[dict[str, Any]]:
        return [event for event in receive() if event.get("name") == "notification.feishu.requested"]

    with other.connection() as connection:
        receiver = other.events.Receiver(connection, handlers={"*": received.append})
        with receiver.consumer_context() as (live, _channel, _consumers):
            wait_until(lambda: other.control.enable_events(reply=True), "the worker sends events")
            wait_until(receive, "a heartbeat arrives, so that no later event is lost")
            payload = payload_of(user, "k", summary_text="canary text")
            other.send_task("notification.feishu.requested", args=[payload], queue="notifications")
            [event, *_] = wait_until(receive_task, "the worker says what it received")

    assert (event["type"], event["args"]) == ("task-received", "(hidden)")
    assert "canary" not in json.dumps(received)
    environment.wait_for_status("sent", 1)


def test_sweep_retries_failed_sends(environment: ProjectEnvironment) -> None:
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


def test_record_of_a_worker_killed_during_a_send_is_sent_again_after_its_lease(environment: ProjectEnvironment) -> None:
    worker = environment.start_worker()
    user, key = environment.add_user("hold", "ok")
    [record] = environment.request(user, "k")
    environment.sandbox.wait_for(1, 60, key=key)

    worker.kill()
    environment.start_worker()
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert len(environment.sandbox.deliveries(notification_id=record)) == 2  # the interrupted send and its repetition
    assert environment.rows("SELECT number, cause, outcome FROM notification_delivery_attempts ORDER BY 1") == [
        (1, "event", "lost"),
        (2, "recovery", "success"),
    ]


def test_terminated_worker_finishes_sends_in_progress(environment: ProjectEnvironment) -> None:
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


def test_requests_are_sent_once_through_a_redis_restart(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    environment.request(user, "before")
    environment.wait_for_status("sent", 1)

    environment.valkey.kill()
    during = environment.request(user, "during-1", "during-2")
    command = environment.manage("deliver_due")
    environment.valkey.start()
    after = environment.request(user, "after")

    assert command.returncode == 0, command.stderr
    environment.wait_for_status("sent", 4)
    assert {record: environment.sends()[record] for record in during + after} == dict.fromkeys(during + after, 1)


def test_worker_reconnects_after_its_database_connections_are_terminated(environment: ProjectEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    other = other_app(environment.valkey.url)

    def send_events(name: str) -> None:
        for number in range(8):  # more than the worker's threads, so that each thread has opened a connection
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


def test_sweep_sends_a_record_whose_celery_message_was_lost(environment: ProjectEnvironment) -> None:
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


def test_2100_notifications_are_delivered_despite_killed_workers_and_valkey(environment: ProjectEnvironment) -> None:
    workers = [environment.start_worker(), environment.start_worker()]
    environment.start("beat")
    users = [environment.add_user()[0] for _ in range(3)]
    records: list[int] = []
    for number, user in enumerate(users):
        records += environment.request(user, *(f"{number}-{key}" for key in range(700)))
        wait_until(lambda: environment.statuses().get("sent", 0) > 100, "some are sent")
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
    # A record is sent twice only if a worker died between the receiver's answer and our commit.
    assert all(times <= 1 + lost.get(record, 0) for record, times in sends.items())


def test_web_process_serves_the_login_page(environment: ProjectEnvironment) -> None:
    port = free_port()
    environment.start("web", PORT=str(port))

    def fetch_login_page() -> tuple[int, str] | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/admin/login/", headers={"Accept-Language": "zh-CN"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            return None
        finally:
            connection.close()

    response = wait_until(fetch_login_page, "the web process answers")
    assert response
    status, page = response
    assert status == 200
    assert "登录" in page


def test_attempt_log_line_is_json_with_all_fields_and_without_secrets(environment: ProjectEnvironment) -> None:
    worker = environment.start_worker()
    user, key = environment.add_user("status:500")
    [record] = environment.request(user, "k")
    environment.wait_for_status("failed", 1)

    def attempts() -> list[str]:
        return [line for line in worker.log.splitlines() if '"event": "delivery.attempted"' in line]

    entry = json.loads(wait_until(attempts, "the worker logs delivery.attempted")[0])
    assert (entry["record_id"], entry["user_id"], entry["attempt"], entry["max_attempts"]) == (record, user, 1, 5)
    assert (entry["outcome"], entry["status"], entry["error_code"]) == ("temporary_fail", "failed", "provider_5xx")
    assert (entry["http_status"], entry["settled"], entry["cause"]) == (500, True, "event")
    assert entry.keys() >= {"duration_ms", "retry_in_s", "worker", "trace_id", "dedupe_key", "channel", "time"}
    assert key not in worker.log


def test_heartbeats_show_which_processes_run(environment: ProjectEnvironment) -> None:
    def count_live_workers() -> int:
        [[count]] = environment.rows(
            "SELECT count(*) FROM notification_heartbeats"
            " WHERE kind = 'worker' AND seen_at > statement_timestamp() - interval '1 minute'"
        )
        return int(count)

    worker = environment.start_worker()
    other = environment.start_worker(WORKER_NAME="other")
    environment.start("beat")

    wait_until(lambda: count_live_workers() == 2, "two workers have a heartbeat")
    wait_until(
        lambda: {("beat",), ("sweep",)} <= set(environment.rows("SELECT name FROM notification_heartbeats")),
        "beat and sweep have a heartbeat",
    )

    worker.terminate()
    assert count_live_workers() == 1
    other.kill()
    assert count_live_workers() == 1  # a killed worker keeps its heartbeat row; the row is ignored a minute later


def test_alert_reports_a_dead_notification_once(environment: ProjectEnvironment) -> None:
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

        wait_until(lambda: bot.texts, "an alert was sent")
        query = "SELECT last_seen FROM notification_alerts WHERE sink = 'feishu'"
        before = environment.rows(query)
        wait_until(lambda: environment.rows(query) > before, "alerts were evaluated again")
    finally:
        bot.close()

    assert len(bot.texts) == 1
    assert "became dead: payload_invalid" in bot.texts[0]
