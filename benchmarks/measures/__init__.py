"""What is measured, by subject. Each takes one round's samples of the keys that are wanted."""

from benchmarks.measures import (
    backlog,
    claiming,
    committing,
    fairness,
    isolation,
    latency,
    ordering,
    redis_down,
    requesting,
    signalling,
    slow,
    sweeping,
    throughput,
)

ALL = (
    *(throughput, slow, isolation, fairness, latency, committing, requesting, sweeping, signalling, ordering, claiming),
    backlog,
    redis_down,
)
