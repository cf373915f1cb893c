-- Count records in flight and waiting by endpoint, those with the most first.
--
-- Only the first max_rows are read, as in count_unfinished.sql, and at most max_endpoints are returned.
--
-- Index: notification_due (next_attempt_at, id), in its order.
SELECT
    channel,
    user_id,
    endpoint_id,
    count(*) FILTER (WHERE status = 'sending') AS in_flight,
    count(*) FILTER (WHERE status <> 'sending') AS waiting
FROM (
    SELECT
        channel,
        user_id,
        endpoint_id,
        status
    FROM notification_records
    WHERE next_attempt_at IS NOT NULL
    ORDER BY next_attempt_at
    LIMIT %(max_rows)s
) AS soonest
GROUP BY channel, user_id, endpoint_id
ORDER BY count(*) DESC, channel ASC, user_id ASC, endpoint_id ASC
LIMIT %(max_endpoints)s
