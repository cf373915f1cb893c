"""Replay operations: criteria that select records, creation of an operation, and the runner of its batches.

The package decides which records are replayed and at which rate. `service` makes each record pending again. `admin`,
`management` and `tasks` may import it.
"""
