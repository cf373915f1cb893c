"""Ways to break the service on purpose, for the fault tests and `make chaos`.

A process that starts with DJANGO_SETTINGS_MODULE=dev.faults.settings reads FAULTS and CONTROL from its environment.
The service itself knows nothing of them: its functions are wrapped from here.
"""
