"""Alerts to people: rules, dispatch, messages, receivers."""
