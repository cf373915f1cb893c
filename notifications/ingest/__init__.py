"""The entrance of requests: payload fields, validation, triggers, and the insert of records.

The package stores records in the caller's transaction. It sends nothing. `service` and every package above it may
import it; `delivery` and `monitoring` may not.
"""
