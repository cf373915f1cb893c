"""Health of delivery: indicators, readiness, metrics, alerts, diagnostics."""
