"""The health of delivery: indicators, conditions, readiness, Prometheus metrics, alerts, diagnostics.

`conditions` decides what is wrong; every other module presents its result. The package reads tables and changes
none but those of alerts. `service` and every package above it may import it; `delivery` and `ingest` may not.
"""
