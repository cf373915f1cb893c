"""Who counts: nginx, where there is one, for speed; an asyncio receiver for waiting, hanging and times of arrival.

Both answer every request with success and are asked for the number of deliveries they have had.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

from benchmarks.serving import READY
from benchmarks.wire import ANSWER
from dev.environment import ROOT
from dev.servers import Server

PATH = "/flow/api/trigger-webhook/"


class Receiver(Server):
    """A receiver on 127.0.0.1 with a counter."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._line: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where it listens: an origin."""
        return f"http://127.0.0.1:{self.port}"

    def hits(self) -> int:
        """Return how many deliveries there have been."""
        raise NotImplementedError

    def answers(self, port: int) -> bool:
        """Tell whether it can be connected to."""
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            return False
        return True

    def get(self, path: str) -> bytes:
        """Return the body of a GET on a connection that is kept."""
        if self._line is None:
            self._line = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            self._file = self._line.makefile("rb")
        self._line.sendall(f"GET {path} HTTP/1.1\r\nHost: receiver\r\n\r\n".encode())
        length = 0
        while line := self._file.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return self._file.read(length)

    def _ended(self) -> None:
        super()._ended()
        if self._line is not None:
            self._file.close()
            self._line.close()
            self._line = None


class Nginx(Receiver):
    """One nginx worker that answers from its configuration; its own status page counts."""

    name = "nginx"
    ready_line = "start worker processes"
    stop_signal = orphan_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._polls = 0

    def command(self, port: int) -> list[str]:
        """Write the configuration and build the command line."""
        config = self.home / "nginx.conf"
        config.write_text(_NGINX % {"port": port, "home": self.home, "path": PATH, "answer": ANSWER.decode()})
        return [str(nginx()), "-p", str(self.home), "-e", "stderr", "-c", str(config)]

    def hits(self) -> int:
        """Return how many requests there were, without our own look-ups."""
        self._polls += 1
        counters = re.search(rb"requests\s+\d+\s+\d+\s+(\d+)", self.get("/status"))
        if counters is None:
            raise RuntimeError("nginx shows no counters")
        return int(counters[1]) - self._polls


_NGINX = """
daemon off;
worker_processes 1;
pid %(home)s/nginx.pid;
error_log stderr notice;
events { worker_connections 4096; multi_accept on; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path %(home)s/body;
    proxy_temp_path %(home)s/proxy;
    fastcgi_temp_path %(home)s/fastcgi;
    uwsgi_temp_path %(home)s/uwsgi;
    scgi_temp_path %(home)s/scgi;
    default_type application/json;
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        location %(path)s { return 200 '%(answer)s'; }
        location /status { stub_status; }
    }
}
"""


def nginx() -> Path | None:
    """Return nginx's program, if this machine has it."""
    path = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin")
    return Path(path) if path else None


class Asyncio(Receiver):
    """Our own receiver in a process of its own."""

    name = "receiver"
    ready_line = READY
    stop_signal = orphan_signal = signal.SIGTERM

    def command(self, port: int) -> list[str]:
        """Build the command line."""
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.serving import serve; serve({port})"
        return [sys.executable, "-c", program]

    def hits(self) -> int:
        """Return how many deliveries have begun."""
        return int(self.get("/hits"))

    def arrivals(self) -> list[tuple[int, str]]:
        """Return first byte (nanoseconds, monotonic clock) and preview id of each delivery so far; forget them."""
        return [(at, preview_id) for at, preview_id in json.loads(self.get("/arrivals"))]
