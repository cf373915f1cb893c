-- Sum all counters over hours and shards.
--
-- Index: none. The whole table notification_tallies is read, which the roll-up keeps small.
SELECT
    measure,
    channel,
    outcome,
    error_code,
    bucket,
    sum(count)::bigint,
    sum(seconds)::float8
FROM notification_tallies
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 2, 3, 4, 5
