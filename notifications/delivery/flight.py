"""One claimed record on its way through lock, send and settle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.delivery.claim import Claimed
from notifications.delivery.locks import KeyLock
from notifications.delivery.settlement import Settlement, build_settlement
from notifications.providers.base import Provider, SendResult
from notifications.states import Outcome


@dataclass(slots=True, kw_only=True)
class Flight:
    """One claimed record in the engine. Times are seconds of the monotonic clock."""

    row: Claimed
    key_lock: KeyLock | None = None
    """The lock of the record's key, if the record lost its former worker."""
    result: SendResult | None = None
    began: float = 0.0
    ended: float = 0.0

    @property
    def needs_no_health_update(self) -> bool:
        """True if the send succeeded and the endpoint had no recorded failures."""
        return self.result is not None and self.result.outcome == Outcome.SUCCESS and not self.row.failures


def build_settlements(
    flights: Sequence[Flight], providers: Mapping[str, Provider], options: ServiceOptions, clock: Clock | None
) -> list[Settlement]:
    """Return the settlements of those flights that have a result.

    Args:
        flights: The flights.
        providers: Providers by channel. A provider with `crowded_half_hours` gets no retry near full and half hours.
        options: For the backoff and its jitter.
        clock: Clock of a test; None for the clock of this machine, which is exact enough to avoid half hours.
    """
    now = time.monotonic()
    settlements = []
    for flight in flights:
        if flight.result is None:
            continue
        avoids_peaks = getattr(providers.get(flight.row.channel), "crowded_half_hours", False)
        settlements.append(
            build_settlement(
                flight.row,
                flight.result,
                options,
                duration=flight.ended - flight.began,
                age=now - flight.began,
                peak_clock=_wall_clock(clock) if avoids_peaks else None,
            )
        )
    return settlements


def _wall_clock(clock: Clock | None) -> datetime:
    return clock() if clock else datetime.now(UTC)
