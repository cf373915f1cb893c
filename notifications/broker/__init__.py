"""Redis and the broker: the client with short timeouts, and the nudge that wakes a drain."""
