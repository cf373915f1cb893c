-- Add the counters of hours older than so many days to the sum of all time, which stands at the hour 'epoch'.
--
-- Index: the primary key of notification_tallies, by measure and hour.
WITH old AS (
    DELETE FROM notification_tallies
    WHERE
        measure = any(%(measures)s)
        AND hour > 'epoch'
        AND hour < date_trunc('hour', statement_timestamp(), 'UTC') - make_interval(days => %(days)s)
    RETURNING channel, measure, outcome, error_code, attempts, bucket, count, seconds
)

INSERT INTO notification_tallies AS tally (
    hour, shard, channel, measure, outcome, error_code, attempts, bucket, count, seconds
)
SELECT
    'epoch',
    0,
    channel,
    measure,
    outcome,
    error_code,
    attempts,
    bucket,
    sum(count),
    sum(seconds)
FROM old
GROUP BY channel, measure, outcome, error_code, attempts, bucket
ORDER BY channel, measure, outcome, error_code, attempts, bucket
ON CONFLICT (measure, hour, channel, outcome, error_code, attempts, bucket, shard)
DO UPDATE SET count = tally.count + excluded.count, seconds = tally.seconds + excluded.seconds
