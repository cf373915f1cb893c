"""A user's channel: the rules for its settings, and test messages to it.

The package holds what the admin and the HTTP API share. It holds no pages and no provider. `admin`, `management`,
`tasks` and `web_api` may import it.
"""
