"""Secrets: encryption at rest, and redaction in logs and error reports."""
