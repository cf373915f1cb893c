"""Prepared statements: planning a claim takes longer than executing it.

Statements are prepared only on a direct connection. Behind a pooler such as PgBouncer the next statement may reach
another server process, which does not know them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from django.db import DatabaseError, connection

PLAN_SECONDS = 60.0
"""How long a plan is used. Tables grow, and their statistics change."""
MAX_PREPARED = 4
"""Statements that one connection keeps."""
USE_PLAN = "SET LOCAL plan_cache_mode = force_generic_plan;"
"""Goes before EXECUTE. All parameters that matter to the plan are constants of the prepared statement."""
_UNKNOWN_STATEMENT = "26000"


@dataclass(slots=True)
class _Session:
    """What one connection has prepared."""

    direct: bool
    began: float
    names: dict[str, str] = field(default_factory=dict)
    """Statement to its name; an empty name if the statement was seen once."""


_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def prepare(cursor: Any, statement: Callable[[], str], *, key: str, types: str) -> str:
    """Prepare a statement when it is used for the second time.

    Args:
        cursor: A cursor of Django's connection, outside of a transaction.
        statement: Returns the statement with its parameters $1, $2, ... and all other values filled in.
        key: What the statement depends on.
        types: SQL types of the parameters.

    Returns:
        The name of the prepared statement. Empty: execute the statement itself.
    """
    raw = connection.connection
    session = _sessions.get(raw)
    if session is None:
        cursor.execute("SELECT pg_backend_pid()")
        # A pooler invents the number that it tells its clients.
        direct = raw.info.backend_pid == cursor.fetchone()[0]
        session = _sessions[raw] = _Session(direct, time.monotonic())
    if not session.direct:
        return ""
    if time.monotonic() - session.began > PLAN_SECONDS:
        for name in filter(None, session.names.values()):
            cursor.execute(f"DEALLOCATE {name}")
        session.began = time.monotonic()
        session.names = dict.fromkeys(session.names, "")
    name = session.names.get(key, "")
    if key in session.names and not name:
        name = session.names[key] = f"notifications_{list(session.names).index(key)}"
        cursor.execute(f"PREPARE {name} ({types}) AS {statement()}")
    elif len(session.names) < MAX_PREPARED:
        session.names.setdefault(key, "")
    return name


def forget_prepared(error: DatabaseError) -> bool:
    """Return whether the error says that the server does not know a prepared statement. Then prepare none any more.

    Args:
        error: Error of EXECUTE. Nothing was executed if this returns True.
    """
    cause: Any = error.__cause__
    unknown = (getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)) == _UNKNOWN_STATEMENT
    if unknown:
        _sessions[connection.connection] = _Session(direct=False, began=time.monotonic())
    return unknown
