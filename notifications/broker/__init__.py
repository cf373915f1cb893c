"""Redis and the message broker: the Redis client with short timeouts, and the nudge that wakes a drain.

The package sends messages and runs Redis commands. It knows no notification and reads no table. `delivery`,
`monitoring` and every package above them may import it.
"""
