-- Sums all counters over hours and shards. Reads the whole table notification_tallies, which roll_up keeps small.
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
