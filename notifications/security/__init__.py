"""Secrets: encryption of stored values, the model field for them, and redaction in logs and error reports.

The package holds no business rule and reads no table. Every package above it may import it.
"""
