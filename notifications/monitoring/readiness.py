"""Readiness: can notifications be delivered right now, and if not, which part is why."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext, gettext_lazy as _

from notifications.broker.redis_client import RedisUnavailable, gateway
from notifications.conf import service_options
from notifications.monitoring.indicators import oldest_due_age, silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What was found out about one part."""

    state: str
    """`ok`; `degraded`: delivery goes on without it; `failed`."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What was found out about all parts that were asked for."""

    parts: dict[str, Part]

    @property
    def ready(self) -> bool:
        """Whether no part failed."""
        return all(part.state != "failed" for part in self.parts.values())

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"ready": self.ready, "parts": {name: asdict(part) for name, part in self.parts.items()}}


OK = Part(state="ok")
_MIGRATED: set[str] = set()
"""Databases that were seen up to date. Looking reads every migration file, and a release never takes one back."""


def _database() -> Part:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return OK


def pending_migrations() -> list[str]:
    """Return the migrations that this code has and the database has not."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _backwards in plan]


def _migrations() -> Part:
    name = str(connection.settings_dict["NAME"])
    if name in _MIGRATED:
        return OK
    if pending := pending_migrations():
        return _failed(gettext("not applied: %(names)s"), names=", ".join(pending))
    _MIGRATED.add(name)
    return OK


def _redis() -> Part:
    if not service_options().redis_url:
        return OK
    try:
        gateway().run(lambda client: client.ping())
    except RedisUnavailable:
        return Part(state="degraded", reason=gettext("Redis does not answer; delivery goes on with the sweeps"))
    return OK


def _sweep() -> Part:
    silent = silence()
    if not silent.too_long:
        return OK
    if silent.sweep is None:
        return _failed(gettext("no sweep was ever seen: start beat and a worker"))
    return _failed(
        gettext(
            "the last sweep ended %(sweep)d s ago, beat was heard of %(beat)s s ago, %(workers)d workers are there"
        ),
        sweep=silent.sweep,
        beat="?" if silent.beat is None else round(silent.beat),
        workers=silent.workers,
    )


def _due() -> Part:
    age, limit = oldest_due_age(), service_options().due_age_limit
    if age <= limit:
        return OK
    return _failed(gettext("a notification has been due for %(age)d s, more than %(limit)d s"), age=age, limit=limit)


PARTS: dict[str, Callable[[], Part]] = {
    "database": _database,
    "migrations": _migrations,
    "redis": _redis,
    "sweep": _sweep,
    "due": _due,
}
AWAY = _("the database does not answer")


def readiness(*, exclude: Collection[str] = ()) -> Readiness:
    """Look at each part but the excluded ones. Never raises, and waits for PostgreSQL once at most."""
    parts: dict[str, Part] = {}
    reachable = True
    for name, look in PARTS.items():
        if name in exclude:
            continue
        if not reachable and name != "redis":
            parts[name] = _failed(str(AWAY))
            continue
        try:
            parts[name] = look()
        except Error as error:
            # The type only: the text may name the database's address.
            parts[name] = _failed(f"{AWAY} ({type(error).__name__})")
            reachable = False
    return Readiness(parts=parts)


def _failed(text: str, **facts: object) -> Part:
    return Part(state="failed", reason=text % facts if facts else text)
