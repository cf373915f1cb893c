-- Count the records that are due by status, error code, channel and hold reason.
--
-- At most max_rows are read, the longest due first. The condition stands inside the limit, so that a backlog cannot
-- make the statement slow.
--
-- Index: notification_due (next_attempt_at, id), in its order.
SELECT
    status,
    last_error_code,
    channel,
    wait_reason,
    count(*),
    min(next_attempt_at)
FROM (
    SELECT
        status,
        last_error_code,
        channel,
        wait_reason,
        next_attempt_at
    FROM notification_records
    WHERE next_attempt_at <= statement_timestamp()
    ORDER BY next_attempt_at, id
    LIMIT %(max_rows)s
) AS soonest
GROUP BY status, last_error_code, channel, wait_reason
