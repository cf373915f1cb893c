"""Breaks the service on purpose, for the fault tests and `make chaos`.

A process that starts with DJANGO_SETTINGS_MODULE=dev.faults.settings reads FAULTS and CONTROL from its environment.
The service does not import this package: its functions are wrapped from here.
"""
