"""How much of everything: the full run, and the quick one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Numbers of one run."""

    fast: int = 20_000
    """Deliveries of the engine and the floor."""
    lean: int = 10_000
    """Of dramatiq and post_office."""
    naive: int = 6_000
    durable: int = 3_000
    slow_seconds: float = 20.0
    """How long the slow receiver is kept busy, were it ideal."""
    isolation_seconds: float = 20.0
    isolation_timeout: float = 5.0
    """READ_TIMEOUT of the workers beside a hanging endpoint; production's."""
    first_sends: int = 300
    """Samples of each kind in a round."""
    repetitions: int = 100
    """Transactions of 100 requests, of each kind in a round."""
    bulk: int = 10_000
    bulk_times: int = 5
    swept: int = 20_000
    few_finished: int = 100_000
    many_finished: int = 10_000_000
    growth_rows: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    """Finished rows beside those that `GROWTH=1` delivers."""
    growth_workers: tuple[int, ...] = (1, 2, 4)
    growth_deliveries: int = 5_000
    redis_calls: int = 20
    """First calls with a silent Redis in a round; ten times as many are later ones."""


FULL = Size()
QUICK = Size(
    fast=4_000,
    lean=2_000,
    naive=1_000,
    durable=400,
    slow_seconds=2.4,
    isolation_seconds=4.0,
    isolation_timeout=1.0,
    first_sends=50,
    repetitions=15,
    bulk_times=2,
    swept=4_000,
    few_finished=20_000,
    many_finished=500_000,
    growth_rows=(1_000, 20_000),
    growth_deliveries=1_000,
    redis_calls=5,
)
