"""What a process reports about itself: trace spans, counters, heartbeats and its name.

The package records. It judges nothing: that is `monitoring`. Every package above it may import it.
"""
