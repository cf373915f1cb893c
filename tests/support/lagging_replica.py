"""A router that reads from a replica, which no code of this app may read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.test import override_settings

ALIAS = "replica"


class ReadFromReplica:
    """Reads from the replica and writes to the default database, as Django's documentation shows."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        return ALIAS

    def db_for_write(self, model: type, **hints: Any) -> str:
        return "default"

    def allow_relation(self, first: Any, second: Any, **hints: Any) -> bool:
        return True


@contextmanager
def lagging_replica() -> Iterator[None]:
    """Route every read to a replica. Django's tests forbid its use, so that a read from it fails."""
    connections.settings[ALIAS] = connections["default"].settings_dict
    try:
        with override_settings(DATABASE_ROUTERS=[ReadFromReplica()]):
            yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]
