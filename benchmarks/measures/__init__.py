"""What is measured, by subject. Each takes one round's samples of the keys that are wanted."""

from benchmarks.measures import throughput

ALL = (throughput,)
