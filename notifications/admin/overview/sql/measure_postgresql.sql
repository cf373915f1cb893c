-- Read how many connections PostgreSQL has, how many it allows, and whether it is read-only.
--
-- Index: none. No table of the app is read.
SELECT
    (SELECT sum(numbackends) FROM pg_stat_database)::int,
    current_setting('max_connections')::int,
    pg_is_in_recovery()
