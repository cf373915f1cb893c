"""The text of a message: trimming, truncation, rendering, link detection, and the meaning of error codes.

The package holds pure functions: no database, no network. Every package above it may import it.
"""
