"""Migrations of large tables stop no request, can be interrupted, and keep the data of the first version."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dev.waiting import wait_until
from tests.support.environment import database, empty_database
from tests.support.paths import ROOT
from tests.support.project_shell import Shell

pytestmark = pytest.mark.processes

ROWS = int(os.environ.get("MIGRATION_TEST_ROWS", "5000"))
"""Rows of the large table. By hand: MIGRATION_TEST_ROWS=10000000."""
BATCH_ROWS = 100_000
PATIENCE = 60 + ROWS / 5_000
VERSION_0_1 = ROOT / "tests" / "support" / "version_0_1.sql"

FILL = """
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, trace_id, status, attempt_count, max_attempts, round, next_attempt_at,
    last_error_code, last_error, provider_message_id
)
SELECT 'feishu', n %% 1000, '', 'preview' || n, '', '', 0, %(prefix)s || n, '/a', 'text', '', false, 'trace' || n,
       CASE WHEN n %% 10 = 0 THEN 'dead' ELSE 'sent' END, 1, 5, 0, NULL, '', '', ''
FROM generate_series(1, %(count)s) AS n
"""

# Notes what each DDL command holds on notification_records when it ends, and how often it has read the whole table.
# The counter is not per transaction, in spite of its name: PostgreSQL empties it at most once in a second.
WATCH = """
CREATE TABLE seen (command text, mode text, scans bigint);
CREATE FUNCTION scans() RETURNS bigint LANGUAGE sql AS
    $$ SELECT COALESCE(pg_stat_get_xact_numscans('public.notification_records'::regclass), 0) $$;
CREATE FUNCTION note_start() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('seen.scans', scans()::text, false);
END $$;
CREATE FUNCTION note_end() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen
    SELECT current_query(), mode, scans() - current_setting('seen.scans')::bigint
    FROM pg_locks
    WHERE pid = pg_backend_pid() AND granted AND relation = 'public.notification_records'::regclass;
END $$;
CREATE EVENT TRIGGER note_start ON ddl_command_start EXECUTE FUNCTION note_start();
CREATE EVENT TRIGGER note_end ON ddl_command_end EXECUTE FUNCTION note_end();
"""
STOPS_INSERTS = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")

SCHEMA = """
SELECT 'column', c.relname, a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.attidentity, pg_get_expr(d.adbin, d.adrelid))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname LIKE '%notification%'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) || convalidated
FROM pg_constraint WHERE conrelid::regclass::text LIKE '%notification%'
UNION ALL SELECT 'index', indrelid::regclass::text, indexrelid::regclass::text,
    pg_get_indexdef(indexrelid) || indisvalid
FROM pg_index WHERE indrelid::regclass::text LIKE '%notification%'
"""


class Database:
    """A database and what the tests ask of it."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True

    def rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Return what a statement returns."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str) -> Any:
        """Return the only value that a query returns; None without a row."""
        rows = self.rows(statement)
        return rows[0][0] if rows else None

    def start_migrate(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `manage.py migrate`."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", "migrate", "--noinput", *arguments],
                cwd=ROOT, env=os.environ | {"DATABASE_URL": self.url}, stdout=log, stderr=log,
            )  # fmt: skip

    def migrate(self, *arguments: str) -> None:
        """Migrate to the end."""
        assert self.start_migrate(*arguments).wait(PATIENCE) == 0, self.log.read_text()


class Requests:
    """Requests of version 0.1, one after the other. One that waits a second for a lock fails."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done = 0
        self.errors: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with contextlib.closing(psycopg2.connect(self.url, options="-c lock_timeout=1s")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not self._ends.wait(0.002):
                    try:
                        cursor.execute(FILL, {"prefix": f"request {uuid.uuid4()} ", "count": 1})
                    except psycopg2.Error as error:
                        self.errors.append(str(error))
                        return
                    self.done += 1

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ends.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        """Wait until twenty more requests are committed."""
        enough = self.done + 20
        wait_until(lambda: self.errors or self.done >= enough, "requests go on", PATIENCE)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    """A large database at the first migration, whose DDL commands are watched."""
    with empty_database() as url:
        db = Database(url, tmp_path / "migrate.log")
        if not db.value("SELECT usesuper FROM pg_user WHERE usename = current_user"):
            pytest.skip("event triggers need a superuser")
        db.migrate("notifications", "0001")
        for batch in range(0, ROWS, BATCH_ROWS):  # our own bound on a wait for PostgreSQL holds here too
            db.rows(FILL, {"prefix": f"old {batch} ", "count": min(BATCH_ROWS, ROWS - batch)})
        db.rows(WATCH)
        yield db
        db.connection.close()


@contextlib.contextmanager
def transaction(url: str, statement: str) -> Iterator[None]:
    """Keep a transaction with the snapshot and the locks of a statement open while the block runs."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute(statement)
            yield


def schema(url: str) -> list[tuple[Any, ...]]:
    """Return columns, constraints and indexes of our tables."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        # A dump writes the casts of a condition in other places.
        return sorted((*row[:3], re.sub(r"::(character varying|text)(\[\])?|[()]", "", row[3])) for row in cursor)


@pytest.mark.parametrize("server_goes_on", [True, False])
def test_requests_go_on_while_a_large_table_is_migrated_in_two_runs(old: Database, *, server_goes_on: bool) -> None:
    file = old.value("SELECT pg_relation_filenode('notification_records')")
    building = "SELECT pid FROM pg_stat_progress_create_index WHERE relid = 'notification_records'::regclass"
    with Requests(old.url) as requests, transaction(old.url, "SELECT 1"):
        with transaction(old.url, "SELECT FROM notification_records LIMIT 1"):  # such as a report or a dump
            first = old.start_migrate()
            wait_until(lambda: "tries again" in old.log.read_text(), "the migration gives way", PATIENCE)
            requests.wait_for_more()
        # A concurrent build waits for the older transaction at its end.
        wait_until(lambda: old.value(building), "an index is being built", PATIENCE)
        requests.wait_for_more()
        first.send_signal(signal.SIGKILL)
        first.wait()
        if not server_goes_on:
            old.rows(f"SELECT pg_terminate_backend(({building}), 10000)")
            assert old.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 1
        second = old.start_migrate()
        requests.wait_for_more()
    with Requests(old.url) as more_requests:
        assert second.wait(PATIENCE) == 0, old.log.read_text()
        more_requests.wait_for_more()

    assert (requests.errors, more_requests.errors) == ([], [])
    blocking = old.rows("SELECT DISTINCT command, mode, scans FROM seen WHERE mode IN %s", [STOPS_INSERTS])
    assert blocking  # the trigger sees the locks
    assert [row for row in blocking if row[2]] == []  # nothing that takes longer on a larger table
    assert old.value("SELECT pg_relation_filenode('notification_records')") == file  # never rewritten
    with database() as fresh:
        assert schema(old.url) == schema(fresh)


def test_the_watch_of_locks_finds_what_reads_the_table_under_a_lock(old: Database) -> None:
    statements = {
        "CREATE INDEX slow ON notification_records (trace_id)": True,
        "ALTER TABLE notification_records ADD CONSTRAINT slow CHECK (round >= 0)": True,
        "ALTER TABLE notification_records ADD COLUMN quick integer": False,
        "CREATE INDEX CONCURRENTLY quick ON notification_records (trace_id)": False,
    }
    for statement in statements:
        old.rows(statement)

    found = {row[0] for row in old.rows("SELECT command FROM seen WHERE scans > 0 AND mode IN %s", [STOPS_INSERTS])}
    assert {statement: statement in found for statement in statements} == statements


def test_a_database_of_version_0_1_keeps_its_data_and_delivers_what_waits(tmp_path: Path) -> None:
    program = """
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from notifications.api import resume_channel
from notifications.models import *
from notifications.testing import deliver_notifications, using_memory
from datetime import timedelta
from notifications.clock import database_now
client = Client()
client.force_login(User.objects.get(username="admin"))
pages = ["/admin/"]
for model in (NotificationRecord, UserNotificationChannel, RejectedRequest, ReplayOperation):
    name = "admin:notifications_" + model._meta.model_name
    pages.append(reverse(name + "_changelist"))
    pages += [reverse(name + "_change", args=[row.pk]) for row in model.objects.all()]
statuses = {page: client.get(page).status_code for page in pages}
secrets = [row.webhook_url.reveal()[:7] for row in UserNotificationChannel.objects.exclude(channel="email")]
for row in UserNotificationChannel.objects.exclude(paused_at=None):
    resume_channel(row.pk)
with using_memory():
    deliver_notifications(at=database_now() + timedelta(days=1))
    deliver_notifications(at=database_now() + timedelta(days=2))
result = {
    "bad pages": {page: status for page, status in statuses.items() if status != 200},
    "secrets": sorted(set(secrets)),
    "statuses": dict(NotificationRecord.objects.values_list("dedupe_key", "status")),
    "rows": [model.objects.count() for model in (RejectedRequest, Alert, DueJob, ReplayOperation)],
}
"""
    with empty_database() as url:
        db = Database(url, tmp_path / "migrate.log")
        db.rows(VERSION_0_1.read_text())
        before = dict(db.rows("SELECT dedupe_key, status FROM notification_records WHERE dedupe_key NOT LIKE 'test:%'"))
        db.migrate()

        with database() as fresh:
            assert schema(url) == schema(fresh)
        env = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "smartmate.settings"}
        with contextlib.closing(Shell(ROOT, env, tmp_path / "shell.log", patience=60)) as shell:
            result = shell.run(program)
        db.connection.close()

    assert result["bad pages"] == {}
    assert result["secrets"] == ["http://"]
    assert result["rows"] == [2, 6, 1, 1]
    expected = {key: "sent" if status in ("pending", "failed", "sending") else status for key, status in before.items()}
    assert {key: result["statuses"][key] for key in before} == expected | {"later-1": "pending"}
