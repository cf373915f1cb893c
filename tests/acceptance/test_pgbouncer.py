"""Everything behind PgBouncer in transaction mode, as docs/operations.md sets it up."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from dev.keeper import private_directory
from dev.pgbouncer import PgBouncer, find
from dev.waiting import wait_until
from tests.support.environment import database
from tests.support.fault_environment import running_fault_environment
from tests.support.pooled_environment import MANUAL, POOL, SERVERS_TAKEN, PooledEnvironment

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(find() is None and not os.environ.get("CI"), reason="no pgbouncer on this machine"),
]


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PooledEnvironment]:
    """One environment for all these tests: each has its own records."""
    manual = configparser.ConfigParser()
    manual.read_string(re.findall(r"```ini\n(.*?)```", MANUAL, re.DOTALL)[0])
    settings = {key: value for key, value in manual["pgbouncer"].items() if not key.startswith(("listen_", "auth_"))}
    # The endpoint is held longer than usual while things break; leases end when the test says so.
    env = {"DATABASE_POOLED": "true", "CONN_MAX_AGE": "60"}
    env |= {"NOTIFICATIONS_TOTAL_TIMEOUT": "60", "NOTIFICATIONS_READ_TIMEOUT": "60"}
    with (
        database() as upstream,
        private_directory() as directory,
        PgBouncer(directory, upstream, settings | {"default_pool_size": str(POOL)}) as bouncer,
        running_fault_environment(
            tmp_path_factory.mktemp("pooled"), own_postgres=False, DATABASE_URL=bouncer.url, **env
        ) as environment,
    ):
        yield PooledEnvironment(environment, bouncer)


@pytest.fixture
def fleet(pooled: PooledEnvironment) -> Iterator[PooledEnvironment]:
    """The same with everything started."""
    pooled.start_fleet()
    yield pooled
    pooled.environment.processes.stop_all()


def test_a_fleet_delivers_each_once_and_nothing_that_was_rolled_back(fleet: PooledEnvironment) -> None:
    user, _key = fleet.environment.add_user()

    records = fleet.ask("calm", user)
    wait_until(lambda: not fleet.unsent(records), lambda: f"all are sent, not {fleet.unsent(records)}")

    assert fleet.sends(records) == dict.fromkeys(records, 1)
    assert fleet.environment.rows("SELECT 1 FROM notification_records WHERE dedupe_key LIKE 'undone-%%'") == []
    servers = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert fleet.direct(servers) <= [(POOL,)]
    assert find_in_admin(fleet, "calm-0-0-0") == 200


def find_in_admin(fleet: PooledEnvironment, key: str) -> int:
    """Log in, find a record, and return the status of a form whose choices come from a cursor in chunks."""
    admin = f"http://127.0.0.1:{fleet.port}/admin/"
    fleet.environment.run(
        "from django.contrib.auth.models import User\nUser.objects.create_superuser('root', password='pw')"
    )
    with requests.Session() as session:
        session.get(f"{admin}login/")
        token = session.cookies["csrftoken"]
        session.post(f"{admin}login/", {"username": "root", "password": "pw", "csrfmiddlewaretoken": token})
        assert key in session.get(f"{admin}notifications/notificationrecord/?q={key}").text
        return session.get(f"{admin}auth/group/add/").status_code


def test_cut_connections_and_killed_pgbouncers_lose_nothing_and_double_nothing(fleet: PooledEnvironment) -> None:
    environment, bouncer = fleet.environment, fleet.bouncer
    held_user, held_key = environment.add_user("hold")
    user, _key = environment.add_user("slow:0.05")
    held = environment.request(held_user, *(f"held-{number}" for number in range(4)))
    environment.sandbox.wait_for(len(held), 60, key=held_key)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(fleet.ask, "stormy", user)
        for number in range(8):
            before = len(environment.sends())
            wait_until(lambda before=before: len(environment.sends()) > before + 10 or asking.done(), "some are sent")  # type: ignore[misc]
            if number % 2:
                fleet.cut_servers()
            else:
                bouncer.kill()
                bouncer.start()
        records = asking.result()
    bouncer.kill()
    environment.sandbox.release(held_key)
    wait_until(
        lambda: any('"settle.delayed"' in handle.log for handle in environment.processes.handles),
        "a worker logs settle.delayed",
    )
    bouncer.start()
    wait_until(lambda: not fleet.unsent(held), "what was in hand is written down")

    environment.processes.stop_all()  # claimed records that were not sent have no owner now
    environment.leases_run_out()
    environment.locks_run_out()
    done = environment.manage("deliver_due")

    assert done.returncode == 0, done.stderr
    assert fleet.unsent(records + held) == []
    assert fleet.sends(records + held) == dict.fromkeys(records + held, 1)
    environment.assert_promise()


def test_a_query_read_in_chunks_does_not_lose_its_cursor_to_others(pooled: PooledEnvironment) -> None:
    program = SERVERS_TAKEN + (
        "from django.contrib.auth.models import Permission\n"
        "rows = Permission.objects.order_by('pk').iterator(chunk_size=1)\n"
        "first = next(rows)\n"
        "others = take_servers()\n"
        "read = 1 + len(list(rows))\n"
        "result = read - Permission.objects.count()"
    )

    assert pooled.environment.run(program) == 0


def test_every_connection_it_gets_has_its_time_zone(pooled: PooledEnvironment) -> None:
    pooled.direct(f"ALTER DATABASE {urlsplit(pooled.bouncer.upstream).path[1:]} SET timezone = 'Asia/Shanghai'")
    pooled.renew_servers()
    program = SERVERS_TAKEN + (
        "from django.db import connection\n"
        "def look():\n"
        "    with connection.cursor() as cursor:\n"
        "        cursor.execute(\"SELECT current_setting('timezone'), pg_backend_pid()\")\n"
        "        return cursor.fetchone()\n"
        "before = look()\n"
        "others = take_servers()\n"
        "result = [before, look()]"
    )

    before, after = pooled.environment.run(program)
    assert before[1] != after[1]
    assert (before[0], after[0]) == ("UTC", "UTC")


def test_a_role_without_bounds_is_named_until_it_has_those_of_the_manual(pooled: PooledEnvironment) -> None:
    check = ("check", "--database", "default", "--fail-level", "WARNING")
    without = pooled.environment.manage(*check)
    [sql] = re.findall(r"```sql\n(.*?)```", MANUAL, re.DOTALL)
    role, name = urlsplit(pooled.bouncer.upstream).username, urlsplit(pooled.bouncer.upstream).path[1:]

    pooled.direct(sql.replace("ROLE smartmate", f"ROLE {role} IN DATABASE {name}"))
    pooled.renew_servers()

    assert without.stderr.count("notifications.W001") == 3
    assert "no statement_timeout" in without.stderr
    within = pooled.environment.manage(*check)
    assert within.returncode == 0, within.stderr


def test_without_the_setting_pgbouncer_refuses_us_and_says_why(pooled: PooledEnvironment) -> None:
    done = pooled.environment.manage("check", "--database", "default", DATABASE_POOLED="false")

    assert done.returncode != 0
    assert "unsupported startup parameter" in done.stderr


def test_a_worker_behind_it_listens_at_redis_and_leaves_nothing_on_its_connections(pooled: PooledEnvironment) -> None:
    environment = pooled.environment
    user, _key = environment.add_user()
    worker = environment.start_worker()
    with environment.redis() as client:
        wait_until(lambda: client.exists("smartmate:listeners"), "the worker listens at Redis")

    record = environment.request(user, "through-redis")  # no beat runs: only a nudge can start a drain

    wait_until(lambda: not pooled.unsent(record), "it is sent")
    # The server has the databases of other tests too, whose workers do hold locks.
    locks = """
        SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    assert pooled.direct(locks) == [(0,)]
    assert "nudge.listening" not in worker.log
    worker.terminate(40)


def test_a_caller_behind_it_wakes_a_worker_that_listens_directly(pooled: PooledEnvironment) -> None:
    environment = pooled.environment
    user, _key = environment.add_user()
    direct = {"DATABASE_URL": pooled.bouncer.upstream, "DATABASE_POOLED": "false", "NOTIFICATIONS_NUDGE": "notify"}
    worker = environment.start_worker(**direct)
    wait_until(lambda: "nudge.listening" in worker.log, "the worker listens")

    record = environment.request(user, "through-notify")

    wait_until(lambda: not pooled.unsent(record), "it is sent")
    worker.terminate(40)
