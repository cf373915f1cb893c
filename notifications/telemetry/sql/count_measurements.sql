-- Add the rows of a CTE `measurements` (channel, measure, outcome, error_code, attempts, seconds) to the counters.
--
-- This is a part of the statements that store results. The rows are locked in the order of the key, so that two
-- processes that settle at once cannot deadlock.
--
-- Index: the primary key of notification_tallies.
INSERT INTO notification_tallies AS tally (
    hour, shard, channel, measure, outcome, error_code, attempts, bucket, count, seconds
)
SELECT
    DATE_TRUNC('hour', %(current_time)s, 'UTC'),
    %(shard)s,
    channel,
    measure,
    outcome,
    error_code,
    LEAST(attempts, 32767),
    WIDTH_BUCKET(seconds::float8, %(bounds)s::float8[]) AS bucket,
    COUNT(*),
    SUM(seconds)
FROM measurements
GROUP BY channel, measure, outcome, error_code, attempts, bucket
ORDER BY channel, measure, outcome, error_code, attempts, bucket
ON CONFLICT (measure, hour, channel, outcome, error_code, attempts, bucket, shard) DO UPDATE
    SET
        count = tally.count + excluded.count,
        seconds = tally.seconds + excluded.seconds
