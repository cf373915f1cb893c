"""What a process reports of itself: traces, counters, heartbeats, its name.

The package records. It judges nothing (`monitoring`). Every package above it may import it.
"""
