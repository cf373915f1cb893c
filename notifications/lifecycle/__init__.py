"""Lifecycle events: what became of a notification. `events` stores them with the change, `relay` calls receivers.

The package decides nothing about a record. `delivery` and `record_operations` tell it what they changed.
"""
