"""The delivery engine: claim due records, lock their keys, send, settle the results.

The package also holds what a claim respects: retry policy, circuit breaker, rate limits. It does not accept requests
(`ingest`) and does not know how a vendor is called (`providers`). `service` and every package above it may import it.
"""
