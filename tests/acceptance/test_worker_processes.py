"""The processes of the Procfile's worker, and those of `manage.py deliver`, which needs no Celery."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from dev.other_app import other_app
from dev.procfile import Handle
from dev.waiting import wait_until
from tests.support.alert_bot import AlertBot
from tests.support.environment import ProjectEnvironment
from tests.support.measured import measured_env
from tests.support.payloads import payload_of, trigger

pytestmark = pytest.mark.acceptance

Start = Callable[..., Handle]


def start_worker(environment: ProjectEnvironment, **env: str) -> Handle:
    return environment.start_worker(WORKER_PROCESSES="2", **measured_env(), **env)


def start_deliver(environment: ProjectEnvironment, **env: str) -> Handle:
    environment.processes.entries["deliver"] = "python manage.py deliver --processes 2"
    handle = environment.start("deliver", **measured_env(), **env)
    wait_until(lambda: handle.log.count("delivering until a stop signal") == 2, "both processes deliver")
    return handle


both_ways = pytest.mark.parametrize("start", [start_worker, start_deliver])


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def senders(environment: ProjectEnvironment) -> set[int]:
    """Return the process ids in the rows of the attempts."""
    rows = environment.rows("SELECT worker FROM notification_delivery_attempts")
    return {int(worker.rpartition(":")[2]) for (worker,) in rows}


@both_ways
def test_the_parent_has_one_thread_and_no_connection(environment: ProjectEnvironment, start: Start) -> None:
    # With traces, whose exporter has a thread.
    handle = start(environment, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    user, _key = environment.add_user()
    environment.request(user, "k")
    environment.wait_for_status("sent", 1)

    parent = psutil.Process(handle.pid)

    assert parent.num_threads() == 1
    assert parent.net_connections("all") == []
    assert "processes.threads" not in handle.log
    assert len(handle.children) == 2


@both_ways
def test_killed_processes_are_replaced_and_the_new_ones_deliver(environment: ProjectEnvironment, start: Start) -> None:
    handle = start(environment)
    before = set(handle.children)

    for pid in before:
        os.kill(pid, signal.SIGKILL)

    ready = " ready." if start is start_worker else "delivering until a stop signal"
    wait_until(lambda: handle.log.count(ready) == 4, "two new processes are ready")
    after = set(handle.children)
    assert not before & after
    assert handle.log.count("killed by SIGKILL") == 2
    user, _key = environment.add_user()
    environment.request(user, "k")
    environment.wait_for_status("sent", 1)
    assert senders(environment) <= after


@both_ways
def test_processes_of_a_killed_parent_finish_their_sends_and_end(environment: ProjectEnvironment, start: Start) -> None:
    handle = start(environment)
    children = handle.children
    user, key = environment.add_user("hold")
    environment.request(user, "k")
    environment.sandbox.wait_for(1, 60, key=key)

    os.kill(handle.pid, signal.SIGKILL)
    wait_until(lambda: handle.log.count("processes.orphaned") == 2, "both notice it")
    environment.sandbox.release(key)

    wait_until(lambda: all(gone(pid) for pid in children), "both have ended")
    assert environment.statuses() == {"sent": 1}
    assert environment.rows("SELECT outcome FROM notification_delivery_attempts") == [("success",)]


@both_ways
def test_a_terminated_parent_ends_when_all_sends_in_progress_are_stored(
    environment: ProjectEnvironment, start: Start
) -> None:
    handle = start(environment)
    children = handle.children
    user, key = environment.add_user("hold", "ok")
    environment.request(user, "k")
    environment.sandbox.wait_for(1, 60, key=key)

    handle.ask_to_end()
    wait_until(lambda: "processes.stopping" in handle.log, "the parent stops")
    environment.sandbox.release(key)

    assert handle.wait(30) == 0
    assert all(gone(pid) for pid in children)
    assert environment.statuses() == {"sent": 1}
    assert environment.rows("SELECT count(*) FROM notification_heartbeats WHERE kind = 'worker'") == [(0,)]


@both_ways
def test_each_process_has_a_heartbeat_and_a_name_of_its_own(environment: ProjectEnvironment, start: Start) -> None:
    handle = start(environment)
    query = "SELECT name FROM notification_heartbeats WHERE kind = 'worker'"

    wait_until(lambda: len(environment.rows(query)) == 2, "both processes have a heartbeat")

    assert {int(name.rpartition(":")[2]) for (name,) in environment.rows(query)} == set(handle.children)


def test_each_worker_answers_celery_by_a_name_of_its_own(environment: ProjectEnvironment) -> None:
    environment.start_worker(WORKER_PROCESSES="3", WORKER_NAME="mail", CELERY_REMOTE_CONTROL="true")

    done = environment.run(
        "from smartmate.celery import app\nresult = app.control.inspect(timeout=10, limit=3).ping()",
        CELERY_REMOTE_CONTROL="true",
    )

    assert sorted(re.sub("@.*", "", name) for name in done) == ["mail-1", "mail-2", "mail-3"]


def test_an_option_that_celery_does_not_know_is_refused_before_a_process_starts(
    environment: ProjectEnvironment,
) -> None:
    done = environment.manage("run_workers", "--processes", "2", "--", "--no-such-option")

    assert (done.returncode, "No such option" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


def test_a_hangup_stops_a_worker_process_and_the_parent_starts_another(environment: ProjectEnvironment) -> None:
    handle = start_worker(environment)
    [pid, other] = handle.children

    os.kill(pid, signal.SIGHUP)

    wait_until(lambda: handle.log.count(" ready.") == 3, "another process is ready")
    assert other in handle.children
    assert pid not in handle.children


def test_the_worker_runs_one_of_each_task(environment: ProjectEnvironment) -> None:
    """Each task of the app is sent over the broker, and its effect is awaited."""
    bot = AlertBot()
    environment.env["NOTIFICATIONS_ALERT_FEISHU_WEBHOOK"] = bot.options["ALERT_FEISHU_WEBHOOK"]
    environment.env["NOTIFICATIONS_SANDBOX_ORIGINS"] += f",{bot.origin}"
    environment.env["NOTIFICATIONS_NUDGE"] = "none"  # nothing but the task itself may have the effect
    environment.env["NOTIFICATIONS_RETENTION_DAYS"] = "1"
    user, _key = environment.add_user()
    names = environment.run(
        "from smartmate.celery import app\n"
        "app.loader.import_default_modules()\n"
        "result = sorted(name for name in app.tasks if not name.startswith('celery.'))"
    )
    start_worker(environment)
    app = other_app(environment.valkey.url)

    def send(name: str, *arguments: Any) -> None:
        queue = "deliver" if name in ("notifications.deliver_due", "notifications.watch") else "notifications"
        app.send_task(name, args=arguments, queue=queue)

    def status(record: int) -> Any:
        rows = environment.rows("SELECT status, round FROM notification_records WHERE id = %s", record)
        return rows[0] if rows else None

    def event() -> None:
        send("notification.feishu.requested", payload_of(user, "by an event"))
        environment.wait_for_status("sent", 1)

    def triggered() -> None:
        send("active_schedule.triggered", trigger(user_id=user, idempotency_key="by a trigger"))
        wait_until(lambda: environment.statuses().get("pending") == 1, "the trigger is stored")

    def requested() -> None:
        send("notification.requested", {"key": "k", "recipients": user, "text": "by a message"})
        wait_until(lambda: environment.statuses().get("pending") == 2, "the message is stored")

    def deliver_due() -> None:
        send("notifications.deliver_due")
        environment.wait_for_status("sent", 3)

    def watch() -> None:
        environment.rows("UPDATE notification_records SET status = 'dead', last_error_code = 'payload_invalid'")
        send("notifications.watch")
        wait_until(lambda: any("became dead" in text for text in bot.texts), "an alert was sent")

    def run_replays() -> None:
        dead = [record for (record,) in environment.rows("SELECT id FROM notification_records WHERE status = 'dead'")]
        done = environment.manage("replay_notifications", "--status", "dead", "--no-wait", "--reason", "a test")
        assert done.returncode == 0, done.stderr
        send("notifications.run_replays")
        wait_until(lambda: {status(record) for record in dead} == {("pending", 1)}, "all are replayed")

    def run_due_jobs() -> None:
        environment.run(
            "from django.utils import timezone\n"
            "from notifications.api import schedule_job\n"
            "from tests.support.payloads import trigger\n"
            f"job = trigger(user_id={user}, idempotency_key='by a job')\n"
            "result = bool(schedule_job('active_schedule.triggered', job, timezone.now(), 'job'))"
        )
        send("notifications.run_due_jobs")
        wait_until(lambda: environment.statuses().get("pending") == 4, "the trigger of the job is stored")

    def purge() -> None:
        environment.rows(
            "UPDATE notification_records SET status = 'sent', next_attempt_at = NULL,"
            " created_at = now() - interval '3 days', updated_at = now() - interval '3 days'"
        )
        send("notifications.purge_notifications")
        wait_until(lambda: not environment.statuses(), "all old records are deleted")

    cases = {
        "notification.feishu.requested": event,
        "active_schedule.triggered": triggered,
        "notification.requested": requested,
        "notifications.deliver_due": deliver_due,
        "notifications.watch": watch,
        "notifications.run_replays": run_replays,
        "notifications.run_due_jobs": run_due_jobs,
        "notifications.purge_notifications": purge,
    }
    try:
        assert sorted(cases) == names
        for check in cases.values():
            check()
    finally:
        bot.close()


def test_deliver_does_the_work_of_beat(environment: ProjectEnvironment) -> None:
    user, _key = environment.add_user("status:503", "ok")
    start_deliver(environment)

    environment.run(
        "from django.utils import timezone\n"
        "from notifications.api import schedule_job\n"
        "from tests.support.payloads import trigger\n"
        f"job = trigger(user_id={user}, idempotency_key='by a job')\n"
        "result = bool(schedule_job('active_schedule.triggered', job, timezone.now(), 'job'))"
    )

    environment.wait_for_status("sent", 1)  # a job, its trigger, and a retry
    kinds = "SELECT DISTINCT kind FROM notification_heartbeats"
    wait_until(lambda: {kind for (kind,) in environment.rows(kinds)} == {"worker", "beat", "sweep", "task"}, "all")


def test_deliver_needs_no_redis(environment: ProjectEnvironment) -> None:
    handle = start_deliver(environment, NOTIFICATIONS_REDIS_URL="")
    user, _key = environment.add_user()

    environment.request(user, "k")

    environment.wait_for_status("sent", 1)
    assert handle.terminate(30) == 0
