-- Counts the records that are due by status, error code and channel. Reads at most max_rows of the index
-- notification_due, the longest due first. The condition stands inside the limit, so that a backlog cannot make
-- the statement slow.
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
    WHERE next_attempt_at <= statement_timestamp()
    ORDER BY next_attempt_at, id
    LIMIT %(max_rows)s
) AS soonest
GROUP BY status, last_error_code, channel
