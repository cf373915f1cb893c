"""HTTP to providers: client, connection pool, response reader, and the guard against private addresses."""
