"""What a process reports of itself: traces, counters, heartbeats, its name."""
