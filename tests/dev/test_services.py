"""What `python -m dev.services run` and the servers behind it promise."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from dev import keeper, records, servers
from dev.pgbouncer import PgBouncer, find
from dev.ports import free_port
from dev.services import Postgres, Server, ServiceError, Valkey, private_directory, services
from tests.dev import eventually
from tests.support.paths import ROOT

pytestmark = pytest.mark.processes

RUN = [sys.executable, "-m", "dev.services", "run", "--"]
# Prints the addresses of the servers, then waits for a line.
WAIT = """
import json, os, sys
print(json.dumps({name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}), flush=True)
sys.exit(len(sys.stdin.readline()))
"""
USE_BOTH = """
import os, psycopg2, redis
with psycopg2.connect(os.environ["DATABASE_URL"]) as connection, connection.cursor() as cursor:
    cursor.execute("SHOW server_version")
    print(cursor.fetchone()[0])
connection.close()
client = redis.Redis.from_url(os.environ["REDIS_URL"])
print(client.ping())
client.close()
"""
COUNT_INTERRUPTS = """
import signal, threading
first, second = threading.Event(), threading.Event()
signal.signal(signal.SIGINT, lambda *_: second.set() if first.is_set() else first.set())
print("ready", flush=True)
first.wait()
print("twice" if second.wait(0.5) else "once", flush=True)
"""
USE_AFTER_INTERRUPT = """
import os, psycopg2, signal, sys
signal.signal(signal.SIGINT, lambda *_: None)
print("ready", flush=True)
sys.stdin.readline()
psycopg2.connect(os.environ["DATABASE_URL"]).close()
print("still there")
sys.exit(3)
"""
# Makes its standard input the terminal of its session, then becomes the program it is given.
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def _interrupts_are_not_ignored() -> Iterator[None]:
    """Let programs that tests start receive SIGINT, also where this run ignores it.

    A shell without job control starts background commands with SIGINT ignored, and programs inherit that.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of our own, where nothing else makes private directories."""
    directory = Path(tempfile.mkdtemp(prefix="smartmate-test-"))
    directory.chmod(0o711)  # as root, PostgreSQL's own user has to go through
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def directory(temporary: Path) -> Iterator[Path]:
    """A private directory."""
    with private_directory() as directory:
        yield directory


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command under dev.services to its end."""
    return subprocess.run(
        [*RUN, *command], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )


class Runner:
    """A run whose command waits, with all that belongs to it."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [*RUN, *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert self.process.stdout is not None
            self.said = self.process.stdout.readline()
            children = psutil.Process(self.process.pid).children()
            self.servers = [child for child in children if child.name() in {"postgres", "valkey-server"}]
            [self.keeper] = [child for child in children if "dev.keeper" in child.cmdline()]
            self.command = [child for child in children if child not in [*self.servers, self.keeper]]
            self.all = psutil.Process(self.process.pid).children(recursive=True)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it, whatever is left of it."""
        with self.process:
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait(30)


@pytest.fixture
def runner(temporary: Path) -> Iterator[Runner]:
    """A run whose command waits for a line."""
    runner = Runner([sys.executable, "-c", WAIT])
    assert len(runner.servers) == 2
    assert len(runner.command) == 1
    yield runner
    runner.close()


def left(temporary: Path) -> list[Path]:
    """List the private directories that are there."""
    return list(temporary.glob(f"{keeper.PREFIX}*"))


def query(url: str, sql: str) -> Any:
    """Run one statement and return the first value of its result, if it has one."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None


@pytest.mark.usefixtures("temporary")
class TestRun:
    def test_the_command_can_use_both_servers(self) -> None:
        done = run(sys.executable, "-c", USE_BOTH)

        assert done.stderr == ""
        version, pong = done.stdout.split("\n")[:2]
        assert version.startswith("18")
        assert pong == "True"

    def test_the_exit_status_is_the_commands(self) -> None:
        assert run("sh", "-c", "exit 7", DATABASE_URL="postgresql://there/db").returncode == 7

    def test_a_command_that_a_signal_ended_gives_128_and_its_number(self) -> None:
        done = run("sh", "-c", "kill -KILL $$", DATABASE_URL="postgresql://there/db")

        assert done.returncode == 128 + signal.SIGKILL

    @pytest.mark.parametrize("env", [{}, {"REDIS_URL": "redis://there"}])
    def test_a_missing_program_gives_127(self, env: dict[str, str], temporary: Path) -> None:
        done = run("no-such-program", DATABASE_URL="postgresql://there/db", **env)

        assert done.returncode == 127
        assert done.stderr == "no-such-program: No such file or directory\n"
        assert left(temporary) == []

    def test_a_given_database_url_is_kept(self) -> None:
        done = run("sh", "-c", "echo $DATABASE_URL $REDIS_URL", DATABASE_URL="postgresql://there/db")

        assert done.stdout.startswith("postgresql://there/db redis://127.0.0.1:")

    def test_a_given_redis_url_is_kept(self) -> None:
        done = run("sh", "-c", "echo $REDIS_URL $DATABASE_URL", REDIS_URL="redis://there")

        assert done.stdout.startswith("redis://there postgresql://postgres@127.0.0.1:")

    def test_no_server_is_started_if_both_urls_are_given(self, temporary: Path) -> None:
        environment = {"DATABASE_URL": "postgresql://there/db", "REDIS_URL": "redis://there"}

        done = run("sh", "-c", 'echo $DATABASE_URL $REDIS_URL; ls -A "$TMPDIR"', **environment)

        assert done.stdout == "postgresql://there/db redis://there\n"

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        done = run("sh", "-c", "echo $REDIS_URL", DATABASE_URL="postgresql://there/db", REDIS_URL="")

        assert done.stdout.startswith("redis://127.0.0.1:")

    def test_no_process_or_directory_remains_after_a_run(self, runner: Runner, temporary: Path) -> None:
        runner.close()

        assert records.wait_gone(runner.all, 0) == []
        assert left(temporary) == []


class TestSignals:
    def test_sigterm_is_forwarded_to_the_command(self, temporary: Path) -> None:
        runner = Runner(["sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while read line; do :; done"])

        runner.process.terminate()

        assert runner.process.stdout is not None
        assert runner.process.stdout.readline() == "bye\n"
        runner.close()
        assert runner.process.returncode == 5
        assert left(temporary) == []

    def test_interrupt_does_not_end_the_run_before_the_command(self, temporary: Path) -> None:
        runner = Runner([sys.executable, "-c", USE_AFTER_INTERRUPT])

        os.killpg(runner.process.pid, signal.SIGINT)
        out, _ = runner.process.communicate("\n", timeout=30)

        assert out == "still there\n"
        assert runner.process.returncode == 3
        assert left(temporary) == []

    def test_ctrl_c_in_a_terminal_reaches_the_command_once(self, temporary: Path) -> None:
        control, terminal = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *RUN, sys.executable, "-c", COUNT_INTERRUPTS],
            cwd=ROOT,
            stdin=terminal,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            os.close(terminal)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

            os.write(control, b"\x03")

            assert process.stdout.readline() == "once\n"
        os.close(control)
        assert process.returncode == 0

    def test_an_interrupt_while_the_servers_start_keeps_the_command_from_starting(self, temporary: Path) -> None:
        process = self.starting(temporary)

        os.killpg(process.pid, signal.SIGINT)

        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 128 + signal.SIGINT
        assert left(temporary) == []

    def test_a_second_interrupt_while_they_start_ends_the_run_at_once(self, temporary: Path) -> None:
        process = self.starting(temporary)
        children = psutil.Process(process.pid).children(recursive=True)

        while process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)

        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 128 + signal.SIGINT
        eventually(lambda: left(temporary) == [])
        assert records.wait_gone(children, 10) == []

    def starting(self, temporary: Path) -> subprocess.Popen[str]:
        """Start a run and return while it makes the database."""
        command = [*RUN, "echo", "started"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        eventually(lambda: list(temporary.glob(f"{keeper.PREFIX}*/initdb.json")) or process.poll() is not None)
        return process


class TestKilledRun:
    def test_servers_and_command_end_when_the_run_is_killed(self, runner: Runner, temporary: Path) -> None:
        runner.process.kill()

        assert records.wait_gone(runner.all, 10) == []
        assert left(temporary) == []

    def test_servers_end_when_the_process_group_is_killed(self, runner: Runner, temporary: Path) -> None:
        os.killpg(runner.process.pid, signal.SIGKILL)

        assert records.wait_gone(runner.all, 10) == []
        assert left(temporary) == []

    def test_a_run_ends_normally_after_its_keeper_is_killed(self, runner: Runner, temporary: Path) -> None:
        runner.keeper.kill()

        runner.close()

        assert runner.process.returncode == 0
        assert records.wait_gone(runner.all, 0) == []
        assert left(temporary) == []

    def test_the_next_run_cleans_up_after_a_run_and_keeper_that_were_killed(
        self, runner: Runner, temporary: Path
    ) -> None:
        runner.keeper.kill()
        assert records.wait_gone([runner.keeper], 10) == []
        runner.process.kill()
        runner.process.wait()
        assert len(left(temporary)) == 1
        assert records.wait_gone(runner.servers, 0) == runner.servers

        assert run("true").returncode == 0

        assert records.wait_gone(runner.all, 0) == []
        assert left(temporary) == []


class TestSweep:
    def test_the_directory_of_a_living_run_is_left_alone(self, runner: Runner, temporary: Path) -> None:
        urls = json.loads(runner.said)

        assert run("true").returncode == 0

        assert query(urls["DATABASE_URL"], "SELECT 1") == 1
        assert len(left(temporary)) == 1

    def test_another_program_with_a_recorded_number_is_left_alone(self, temporary: Path) -> None:
        dead = temporary / f"{keeper.PREFIX}dead"
        dead.mkdir()
        (dead / "lock").touch()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
            note = {"pid": stranger.pid, "created": 1.0, "stop": int(signal.SIGKILL), "group": False}
            (dead / "valkey.json").write_text(json.dumps(note))

            keeper.sweep()

            assert stranger.poll() is None
            assert not dead.exists()

    def test_a_directory_that_is_being_made_is_left_alone(self, temporary: Path) -> None:
        new = temporary / f"{keeper.PREFIX}new"
        new.mkdir()

        keeper.sweep()

        assert new.exists()

    def test_an_old_directory_without_a_lock_is_removed(self, temporary: Path) -> None:
        old = temporary / f"{keeper.PREFIX}old"
        old.mkdir()
        os.utime(old, (0, 0))

        keeper.sweep()

        assert not old.exists()

    def test_a_link_is_not_followed(self, temporary: Path) -> None:
        treasure = temporary / "treasure"
        treasure.mkdir()
        (treasure / "lock").touch()
        (temporary / f"{keeper.PREFIX}link").symlink_to(treasure)

        keeper.sweep()

        assert (treasure / "lock").exists()


class LoneBouncer(PgBouncer):
    """One with nothing behind it, which is all that starting and stopping needs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "postgresql://somebody@127.0.0.1:1/nothing")


NO_BOUNCER = pytest.mark.skipif(find() is None and not os.environ.get("CI"), reason="no pgbouncer on this machine")


@pytest.mark.parametrize("kind", [Postgres, Valkey, pytest.param(LoneBouncer, marks=NO_BOUNCER)])
class TestServer:
    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_a_restart_keeps_the_port(self, kind: type[Server], end: str, directory: Path) -> None:
        with kind(directory) as server:
            url, pid = server.url, server.pid

            getattr(server, end)()
            assert not server.running
            assert not server.answers(server.port)
            server.start()

            assert server.url == url
            assert server.pid != pid
            assert server.answers(server.port)

    def test_kill_leaves_no_process(self, kind: type[Server], directory: Path) -> None:
        with kind(directory) as server:
            family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]

            server.kill()

            assert records.wait_gone(family, 0) == []

    def test_a_server_listens_only_on_the_loopback_address(self, kind: type[Server], directory: Path) -> None:
        with kind(directory) as server:
            sockets = psutil.Process(server.pid).net_connections("all")

        listening = [tuple(item.laddr) for item in sockets if item.status == psutil.CONN_LISTEN]
        assert listening == [("127.0.0.1", server.port)]
        assert not [item for item in sockets if item.family == socket.AF_UNIX and item.laddr]

    def test_the_first_start_skips_a_port_in_use(
        self, kind: type[Server], directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            ports = [other.getsockname()[1], free_port()]
            monkeypatch.setattr(servers, "free_port", lambda: ports.pop(0))

            with kind(directory) as server:
                assert server.port != other.getsockname()[1]
                assert server.answers(server.port)

    def test_a_restart_fails_if_its_port_is_in_use(self, kind: type[Server], directory: Path) -> None:
        with kind(directory) as server:
            server.stop()

            with socket.create_server(("127.0.0.1", server.port)), pytest.raises(ServiceError, match="already in use"):
                server.start()

    def test_a_running_server_cannot_be_started(self, kind: type[Server], directory: Path) -> None:
        with kind(directory) as server, pytest.raises(ServiceError, match="already running"):
            server.start()

    def test_a_stopped_server_has_no_pid(self, kind: type[Server], directory: Path) -> None:
        with pytest.raises(ServiceError, match="not running"):
            _ = kind(directory).pid

    def test_stopping_a_stopped_server_does_nothing(self, kind: type[Server], directory: Path) -> None:
        server = kind(directory)

        server.stop()
        server.kill()

        assert not server.running


class TestPostgres:
    def test_committed_rows_survive_a_kill(self, directory: Path) -> None:
        with Postgres(directory) as server:
            query(server.url, "CREATE TABLE kept AS SELECT 42 AS number")

            server.kill()
            server.start()

            assert query(server.url, "SELECT number FROM kept") == 42

    @pytest.mark.parametrize(("durable", "fsync"), [(False, "off"), (True, "on")])
    def test_durable_waits_for_the_disk(self, durable: bool, fsync: str, directory: Path) -> None:
        with Postgres(directory, durable=durable) as server:
            assert query(server.url, "SHOW fsync") == fsync
            assert query(server.url, "SHOW full_page_writes") == fsync

    def test_postgresql_uses_utc_and_utf8(self, directory: Path) -> None:
        with Postgres(directory) as server:
            assert query(server.url, "SHOW timezone") == "UTC"
            assert query(server.url, "SHOW server_encoding") == "UTF8"
            assert query(server.url, "SELECT upper('äé')") == "ÄÉ"

    def test_a_failed_start_reports_the_end_of_the_log(self, directory: Path) -> None:
        with Postgres(directory) as server:
            server.stop()
            (server.data / "global" / "pg_control").unlink()

            with pytest.raises(ServiceError, match="pg_control"):
                server.start()

            assert not server.running


class TestValkey:
    def test_a_restart_loses_everything(self, directory: Path) -> None:
        with Valkey(directory) as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
            client.set("key", "value")

            server.stop()
            server.start()

            assert client.get("key") is None

    def test_valkey_evicts_nothing_and_writes_nothing_to_disk(self, directory: Path) -> None:
        with Valkey(directory) as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
            settings: Any = client.config_get("*")

        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["save"] == ""
        assert settings["appendonly"] == "no"


class TestServices:
    def test_services_yields_both_urls(self, temporary: Path) -> None:
        with services({}) as urls:
            assert query(urls["DATABASE_URL"], "SELECT 1") == 1
            with contextlib.closing(redis.Redis.from_url(urls["REDIS_URL"])) as client:
                assert client.ping()

        assert left(temporary) == []

    def test_services_cleans_up_after_an_exception(self, temporary: Path) -> None:
        with pytest.raises(RuntimeError, match="oops"), services({"DATABASE_URL": "postgresql://there/db"}):
            raise RuntimeError("oops")

        assert left(temporary) == []
