"""The demo: production's processes, a sandbox for an endpoint, and a scenario played through the public entrances."""
