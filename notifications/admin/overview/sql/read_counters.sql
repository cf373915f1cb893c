-- Sum the counters of a time span by hour or by day of the reader's time zone.
--
-- The inner query sums by the hour first, because finding the reader's day of each row takes longer.
--
-- Index: the primary key of notification_tallies, by measure and hour.
SELECT
    measure,
    outcome,
    attempts,
    bucket,
    date_trunc(%(unit)s, hour, %(zone)s),
    sum(count)::bigint
FROM (
    SELECT
        hour,
        measure,
        outcome,
        attempts,
        CASE WHEN measure = 'attempts' THEN 0 ELSE bucket END AS bucket,
        sum(count) AS count
    FROM notification_tallies
    WHERE measure = any(%(measures)s) AND hour >= %(since)s AND hour <= %(until)s
    GROUP BY 1, 2, 3, 4, 5
) AS hours
GROUP BY 1, 2, 3, 4, 5
