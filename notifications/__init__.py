"""Notifications that are delivered at least once, whatever crashes."""
