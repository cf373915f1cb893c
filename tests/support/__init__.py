"""Helpers that several test modules use. Each module is named by what it holds."""
