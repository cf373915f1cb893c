"""A user's channel: which settings may be stored, and test messages to it."""
