"""Periodic work beside delivery: deletion of old rows, and publication of due jobs.

The package holds the work, not its schedule (`beat`) and not its tasks (`tasks`). Every package above it may import it.
"""
