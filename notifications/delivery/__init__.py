"""The delivery engine: claim, lock, send, settle."""
