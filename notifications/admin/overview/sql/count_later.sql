-- Counts the records that become due later by status, error code and channel. Reads at most max_rows of the index
-- notification_due, the next due first.
SELECT
    status,
    last_error_code,
    channel,
    count(*),
    min(next_attempt_at)
FROM (
    SELECT
        status,
        last_error_code,
        channel,
        next_attempt_at
    FROM notification_records
    WHERE next_attempt_at > statement_timestamp()
    ORDER BY next_attempt_at, id
    LIMIT %(max_rows)s
) AS soonest
GROUP BY status, last_error_code, channel
