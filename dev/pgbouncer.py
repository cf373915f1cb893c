"""PgBouncer before a PostgreSQL server, for tests. The program is the machine's own; nothing is downloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2.extensions import parse_dsn

from dev.postgres import not_as_root
from dev.servers import Server, ServiceError

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")  # Debian's is not on everybody's PATH
_SETTINGS = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "trust",
    "pool_mode": "transaction",
    "server_login_retry": "1",
}


def find() -> Path | None:
    """Return the path of the program, or None."""
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    path = shutil.which("pgbouncer", path=folders)
    return Path(path) if path else None


class PgBouncer(Server):
    """A PgBouncer in transaction mode that leads to one PostgreSQL server.

    Args:
        directory: where its configuration and log go; a private_directory(), so that it never outlives this process.
        upstream: the address of a database, as clients would use it without PgBouncer.
        settings: of the section [pgbouncer], on top of what it needs to run here.
    """

    name = "pgbouncer"
    ready_line = "process up"
    stop_signal = signal.SIGINT  # lets running transactions end
    orphan_signal = signal.SIGQUIT  # at once in every version; what SIGTERM means has changed

    def __init__(self, directory: Path, upstream: str, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory)
        self.upstream = upstream
        self.settings = _SETTINGS | dict(settings or {})

    @property
    def url(self) -> str:
        """The address of the same database through PgBouncer."""
        parts = urlsplit(self.upstream)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))

    def command(self, port: int) -> list[str]:
        """Write the configuration, which is where the port has to be, and build the command line.

        Args:
            port: where it listens.
        """
        program = find()
        if program is None:
            raise ServiceError("no pgbouncer on this machine")
        server = parse_dsn(self.upstream)
        users = self._write("users", f'"{server["user"]}" "{server.get("password", "")}"\n')
        listen = {"listen_port": str(port), "auth_file": str(users), "admin_users": server["user"]}
        lines = [f"{key} = {value}" for key, value in (self.settings | listen).items()]
        databases = f"[databases]\n* = host={server['host']} port={server.get('port', '5432')}\n\n[pgbouncer]\n"
        return [str(program), str(self._write("ini", databases + "\n".join(lines) + "\n"))]

    def answers(self, port: int) -> bool:
        """Tell whether its console answers.

        Args:
            port: where it should listen.
        """
        try:
            return bool(self._console("SHOW VERSION", port))
        except psycopg2.OperationalError:
            return False

    def console(self, command: str) -> list[dict[str, Any]]:
        """Run a command of the console, such as SHOW POOLS, and return its rows."""
        return self._console(command, self.port)

    def identity(self) -> dict[str, Any]:
        """Say as whom to run, as options of Popen."""
        return not_as_root()

    def _console(self, command: str, port: int) -> list[dict[str, Any]]:
        user = parse_dsn(self.upstream)["user"]
        with contextlib.closing(
            psycopg2.connect(
                host="127.0.0.1", port=port, user=user, dbname="pgbouncer", connect_timeout=2, sslmode="disable"
            )
        ) as connection:
            connection.autocommit = True  # it knows no BEGIN
            with connection.cursor() as cursor:
                cursor.execute(command)
                names = [column.name for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []

    def _write(self, name: str, text: str) -> Path:
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)  # it may hold a password
        if identity := self.identity():
            os.chown(path, identity["user"], identity["group"])
        return path
