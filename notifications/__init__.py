"""A Django app that delivers notifications at least once, even if processes, Redis or the network fail.

Requests enter through `api` (same project), `tasks` (other Celery apps) and `web_api` (users). `ingest` stores them,
`delivery` sends them through `providers`. docs/design.md has the map of the packages and the rules of imports.
"""
