"""What is measured, by subject. Each takes one round's samples of the keys that are wanted."""

from benchmarks.measures import claiming, isolation, latency, redis_down, requesting, slow, sweeping, throughput

ALL = (throughput, slow, isolation, latency, requesting, sweeping, claiming, redis_down)
