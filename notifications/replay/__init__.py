"""Replay operations: criteria, creation, and the runner of batches."""
