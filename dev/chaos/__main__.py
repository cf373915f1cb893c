"""The soak: load, faults, drain, count.

From the environment: CHAOS_MINUTES, CHAOS_SEED, CHAOS_RATE (notifications a second), CHAOS_JSON (a file for the
result), CHAOS_LOGS (a folder for the processes' logs), CHAOS_CONTROL (a guard to switch off: claim, fence, lock) and
CHAOS_FAULTS (names of the only faults to use).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import redis

from dev.chaos.environment import SoakEnvironment
from dev.chaos.evaluation import OPEN_STATUSES, Observations, SoakResult, judge
from dev.chaos.faults import Schedule
from dev.chaos.load import KINDS, WORDS, Load
from dev.keeper import private_directory

DRAIN_SECONDS = 180.0
MAX_VIOLATIONS_SHOWN = 20


def main() -> int:
    """Run a soak; return 0 only if nothing was lost, stuck, doubled outside the window or leaked."""
    minutes = float(os.environ.get("CHAOS_MINUTES") or 3)
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    rate = float(os.environ.get("CHAOS_RATE") or 65)
    control = os.environ.get("CHAOS_CONTROL", "")
    only = frozenset(filter(None, os.environ.get("CHAOS_FAULTS", "").split(",")))
    print(f"chaos: {minutes:g} minutes, seed {seed}{f', without the {control}' if control else ''}", flush=True)
    with private_directory() as folder, SoakEnvironment(folder, control) as environment:
        users, keys = _add_users(environment)
        environment.supervise()
        load = Load(
            environment.port, environment.valkey.url, users, rate, seed, lambda wanted: _stored(environment, wanted)
        )
        schedule = Schedule(environment, seed, keys, only)
        load.start()
        schedule.run(minutes * 60)
        load.stop()
        _drain(environment)
        result = judge(_observe(environment, load, schedule, users))
        if kept := os.environ.get("CHAOS_LOGS"):
            shutil.copytree(environment.logs, kept, dirs_exist_ok=True)
        leaks = list(_leaks(environment, [key for kind in keys.values() for key in kind]))
    return _report(result, schedule, leaks, seed, minutes)


def _add_users(environment: SoakEnvironment) -> tuple[dict[int, str], dict[str, list[str]]]:
    """Make a user for each kind of endpoint; return their kinds by id, and the endpoints' keys by kind."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.db import connection

    from notifications.models import UserNotificationChannel

    users: dict[int, str] = {}
    keys: dict[str, list[str]] = {kind: [] for kind in WORDS}
    for number, kind in enumerate(KINDS):
        user = get_user_model().objects.create_user(f"user{number}")
        users[user.pk] = kind
        if kind in WORDS:
            key = f"canary{os.urandom(12).hex()}"
            keys[kind].append(key)
            environment.sandbox.script(key, *WORDS[kind])
            address = f"{environment.origin}/flow/api/trigger-webhook/{key}"
            UserNotificationChannel.objects.create(
                user=user, channel="feishu", webhook_url=address, auth_type="bearer", bearer_token=f"token{key}"
            )
    connection.close()
    return users, keys


def _stored(environment: SoakEnvironment, keys: list[str]) -> set[str]:
    with suppress(psycopg2.Error):
        rows = environment.query("SELECT dedupe_key FROM notification_records WHERE dedupe_key = ANY(%s)", keys)
        return {key for (key,) in rows}
    return set()


def _drain(environment: SoakEnvironment) -> None:
    """Wait until every record is final, or long enough."""
    deadline = time.monotonic() + DRAIN_SECONDS
    count_open = "SELECT count(*) FROM notification_records WHERE status = ANY(%s)"
    while time.monotonic() < deadline and environment.query(count_open, list(OPEN_STATUSES))[0][0]:
        environment.supervise()
        time.sleep(0.5)
    _show_open(environment)
    environment.processes.stop_all(40)


OPEN_RECORDS = """
SELECT id, user_id, status, attempt_count, wait_reason, next_attempt_at - now(), now() - updated_at
FROM notification_records WHERE status = ANY(%s) ORDER BY id LIMIT 20
"""
ENDPOINTS = """
SELECT id, user_id, paused_at, pause_reason, failures, probe_at - now(), release_at - now()
FROM user_notification_channels WHERE paused_at IS NOT NULL OR failures > 0 OR release_at IS NOT NULL
"""
SESSIONS = """
SELECT pid, state, wait_event, now() - state_change, left(query, 200)
FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'
"""


def _show_open(environment: SoakEnvironment) -> None:
    """Print what is known of records that are not final, while the processes still run."""
    if not (records := environment.query(OPEN_RECORDS, list(OPEN_STATUSES))):
        return
    rows = {"open": records, "endpoint": environment.query(ENDPOINTS), "session": environment.query(SESSIONS)}
    for kind, found in rows.items():
        for row in found:
            print(f"  {kind}: {', '.join(map(str, row))}")


def _observe(environment: SoakEnvironment, load: Load, schedule: Schedule, users: dict[int, str]) -> Observations:
    return Observations(
        promised=load.promised,
        undone=load.undone,
        users=users,
        records=environment.query("SELECT id, dedupe_key, status, user_id FROM notification_records"),
        attempts=environment.query(
            "SELECT record_id, outcome, error_code, worker, extract(epoch FROM started_at)::float,"
            " COALESCE(duration_ms, 0) / 1000.0 FROM notification_delivery_attempts ORDER BY record_id, round, number",
        ),
        deliveries=environment.sandbox.deliveries(accepted=True),
        events=schedule.events,
        drivers=environment.drivers,
    )


def _leaks(environment: SoakEnvironment, secrets: list[str]) -> Iterator[str]:
    """Name the places where a secret can be read: logs, tables, Redis."""
    for log in environment.logs.glob("*.log"):
        with log.open(errors="replace") as lines:
            if any(secret in line for line in lines if "canary" in line for secret in secrets):
                yield f"log {log.name}"
    tables = environment.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = environment.query(f"SELECT t::text FROM {table} t WHERE t::text LIKE '%%canary%%' LIMIT 1")  # noqa: S608
        if rows:
            yield f"table {table}"
    with redis.Redis.from_url(environment.valkey.url) as client:
        for key in client.scan_iter():
            if b"canary" in (client.dump(key) or b""):
                yield f"redis key {key!r}"


def _report(result: SoakResult, schedule: Schedule, leaks: list[str], seed: int, minutes: float) -> int:
    values = {
        "requested": result.requested,
        "delivered": result.delivered,
        "kills": schedule.kills,
        "lost": result.lost,
        "stuck": result.stuck,
        "duplicates_in_window": result.duplicates_in_window,
        "duplicates_outside_window": result.duplicates_outside_window,
        "secrets_found": len(leaks),
        "phantoms": result.unrequested,
        "duplicates_by_cause": dict(result.causes),
        "duplicates_per_kill": round(result.causes["sender killed"] / schedule.kills, 4) if schedule.kills else 0.0,
        "faults": len(schedule.events),
        "seed": seed,
        "minutes": minutes,
    }
    for violation in [*leaks, *result.violations][:MAX_VIOLATIONS_SHOWN]:
        print(f"  ! {violation}")
    for name, value in values.items():
        print(f"{name:>26}: {value}")
    if path := os.environ.get("CHAOS_JSON"):
        Path(path).write_text(json.dumps(values, indent=2) + "\n")
    bad = result.lost or result.stuck or result.unrequested or result.duplicates_outside_window or leaks
    print("chaos: the promise was broken" if bad else "chaos: the promise held", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
