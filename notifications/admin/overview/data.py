"""What the overview knows before it says anything, and how it says what it found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from notifications.admin.overview.charts import number
from notifications.admin.overview.counts import Count
from notifications.admin.overview.server_status import Postgres, Redis
from notifications.telemetry.heartbeats import LastHeartbeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules look at; None where the reader may not see it."""

    counts: dict[str, Count]
    rejected: Count | None
    paused: Count | None
    attempts: dict[tuple[str, str], int]
    seen: LastHeartbeats
    postgres: Postgres
    redis: Redis

    @property
    def now(self) -> datetime:
        """PostgreSQL's time."""
        return self.seen.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One thing that needs a person. kind: a colour, "dead" or "failed"; url and button: where to go for it."""

    kind: str
    what: str
    do: str
    url: str = ""
    button: str = ""


def shown(count: Count) -> str:
    """Return a count in words."""
    return _("at least %(count)s") % {"count": number(count.number)} if count.capped else number(count.number)
