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
    crawling_seconds: float = 20.0
    """The same for the receiver that takes two seconds."""
    isolation_seconds: float = 20.0
    isolation_timeout: float = 5.0
    """READ_TIMEOUT of the workers beside a hanging endpoint; production's."""
    slow_backlog: int = 3_000
    """Due to the endpoint that takes two seconds, beside fifty other users."""
    fast_backlog: int = 20_000
    """Due to one user, in front of fifty others."""
    first_sends: int = 300
    """Samples of each kind in a round."""
    commit_seconds: float = 5.0
    """How long callers commit, in each way."""
    commit_times: int = 4
    repetitions: int = 100
    """Transactions of 100 requests, of each kind in a round."""
    bulk: int = 10_000
    bulk_times: int = 5
    swept: int = 20_000
    other_keys: int = 1_000_000
    """Order keys that have a waiting record each, beside those that are delivered."""
    few_finished: int = 100_000
    many_finished: int = 10_000_000
    held_deliveries: int = 100_000
    """Delivered while an old snapshot is open."""
    few_due: int = 10_000
    many_due: int = 5_000_000
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
    crawling_seconds=8.0,
    isolation_seconds=4.0,
    isolation_timeout=1.0,
    slow_backlog=1_000,
    fast_backlog=5_000,
    first_sends=50,
    commit_seconds=2.0,
    commit_times=2,
    repetitions=15,
    bulk_times=2,
    swept=4_000,
    other_keys=50_000,
    few_finished=20_000,
    many_finished=500_000,
    held_deliveries=5_000,
    many_due=300_000,
    growth_rows=(1_000, 20_000),
    growth_deliveries=1_000,
    redis_calls=5,
)
