"""RabbitMQ as Celery's broker, for tests. The program is the machine's own; nothing is downloaded."""

from __future__ import annotations

import shlex
import signal
import socket
from pathlib import Path

from dev.ports import free_port
from dev.servers import Server

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's; the wrapper in /usr/sbin would change the user."""
_GREETING = b"AMQP\x00\x00\x09\x01"


def find() -> Path | None:
    """Return the path of the program, or None."""
    return PROGRAM if PROGRAM.exists() else None


class RabbitMQ(Server):
    """A RabbitMQ node of its own. Queues that are durable survive a kill.

    Args:
        directory: where its data and log go; a private_directory(), so that it never outlives this process.
    """

    name = "rabbitmq"
    ready_line = "completed with"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._mapper_port, self._cluster_port = free_port(), free_port()

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self, port: int) -> list[str]:
        """Build the command line that runs the server, and the name server that Erlang needs, in the foreground.

        Args:
            port: where it listens.
        """
        home = str(self.home)
        variables = {
            "HOME": home,
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(self._cluster_port),
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/logs",
            "RABBITMQ_CONFIG_FILE": f"{home}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        words = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), str(PROGRAM)])
        return ["sh", "-c", f"epmd -port {self._mapper_port} -address 127.0.0.1 & exec {words}"]

    def answers(self, port: int) -> bool:
        """Tell whether the server answers the greeting of AMQP.

        Args:
            port: where it should listen.
        """
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(_GREETING)
                return connection.recv(1) == b"\x01"  # the frame of a method: Connection.Start
        except OSError:
            return False

    def stop(self) -> None:
        """End the server and its name server, which a signal to the server alone would leave."""
        self.kill()
