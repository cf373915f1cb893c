"""HTTP for providers: client, connection pool, response reader, URL rules, and the guard against private addresses.

The package knows requests and responses, and no vendor. Providers and alert receivers may import it.
"""
