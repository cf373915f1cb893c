"""How long others wait beside a slow endpoint and behind a queue, and how a rate limit is used.

Fifty users get one message each, in an idle system, beside many messages that are due to an endpoint that takes two
seconds, and behind many fast ones of one user. The time is from the commit of a request to the first byte at the
receiver. A custom bot takes 5 messages a second and 100 a minute: 120 are due, those of the first minute are counted,
and the row updates until all are there.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from benchmarks.environment import BOT, FAST, BenchmarkEnvironment
from benchmarks.figures import Results, percentile
from benchmarks.requests_made import commit_one
from benchmarks.serving import CRAWLING, QUICK
from benchmarks.size import Size
from dev.procfile import Handle
from dev.waiting import wait_until

WAITING = {"fair_slow_neighbour_p95", "fair_backlog_p95"}
LIMITED = {"rate_limited_per_minute", "rate_limited_updates"}
KEYS = frozenset(WAITING | LIMITED)
BOT_MESSAGES = 120
INTERVAL_SECONDS = 0.02
"""Time between two of the fifty requests."""
UPDATES = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'notification_records'"
STATISTICS_DELAY_SECONDS = 1.5
"""Time after which PostgreSQL has added up what a session did."""


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Run what is wanted."""
    if wanted & WAITING:
        with _workers_of(environment):
            alone = _delays(environment, "alone")
        figures = {
            "fair_slow_neighbour_p95": (CRAWLING, size.slow_backlog),
            "fair_backlog_p95": (FAST, size.fast_backlog),
        }
        for name, (key, count) in figures.items():
            if name in wanted:
                with _workers_of(environment):
                    beside = _beside(environment, key, count)
                below = {"ms with": percentile(beside, 95), "ms alone": percentile(alone, 95)}
                below |= {"p50 with": percentile(beside, 50), "p50 alone": percentile(alone, 50)}
                results.add(name, percentile(beside, 95) / percentile(alone, 95), **below)
                results.notes[name] = f"{count:,} due to the other"
    if wanted & LIMITED:
        with _workers_of(environment):
            in_first_minute, updates = _fill_bot(environment)
        results.add("rate_limited_per_minute", in_first_minute)
        results.add("rate_limited_updates", updates)


def _workers_of(environment: BenchmarkEnvironment) -> AbstractContextManager[list[Handle]]:
    """Clear the environment and return the engine's workers, which run while the context lasts."""
    environment.clear()
    environment.asyncio.arrivals()
    return environment.engine()


def _delays(environment: BenchmarkEnvironment, name: str) -> list[float]:
    """Send one message to each of fifty users, and return the milliseconds of each."""
    for number in range(5):  # all processes are ready
        commit_one(f"{name}:warm:{number}", environment.users[QUICK][number])
        time.sleep(0.1)
    committed = {}
    for number, user in enumerate(environment.users[QUICK]):
        committed[f"{name}:{number}"] = commit_one(f"{name}:{number}", user)
        time.sleep(INTERVAL_SECONDS)
    arrivals: dict[str, int] = {}

    def all_there() -> bool:
        arrivals.update({key: at for at, key in environment.asyncio.arrivals()})
        return committed.keys() <= arrivals.keys()

    wait_until(all_there, "the messages to the fifty users have arrived", 120)
    return [(arrivals[key] - at) / 1e6 for key, at in committed.items()]


def _beside(environment: BenchmarkEnvironment, key: str, count: int) -> list[float]:
    """Return the delays while the messages to another endpoint wait."""
    from notifications.broker.nudge import nudge

    receiver = environment.fast if key == FAST else environment.asyncio
    before = receiver.hits()
    environment.preload(count, environment.users[key][:1])
    nudge()
    wait_until(lambda: receiver.hits() > before, "the other messages are being sent")
    return _delays(environment, key)


def _fill_bot(environment: BenchmarkEnvironment) -> tuple[float, float]:
    """Return how many messages arrived in the first minute, and the row updates for each message in all."""
    from notifications.broker.nudge import nudge

    before = environment.number(UPDATES)
    environment.preload(BOT_MESSAGES, environment.users[BOT], channel="feishu_bot")
    nudge()
    hits = environment.asyncio.hits()
    wait_until(lambda: environment.asyncio.hits() - hits >= BOT_MESSAGES, "the bot has got all messages", 180)
    times = [at for at, _key in environment.asyncio.arrivals()]
    time.sleep(STATISTICS_DELAY_SECONDS)
    in_first_minute = sum(at - times[0] < 60e9 for at in times)
    return float(in_first_minute), (environment.number(UPDATES) - before) / BOT_MESSAGES
