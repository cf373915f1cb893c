-- Count records that are not final by channel, status, error code and whether they are due.
--
-- Only the first max_rows are read, because a backlog may be too large to read whole.
--
-- Index: notification_due (next_attempt_at, id), in its order.
SELECT
    channel,
    status,
    last_error_code,
    next_attempt_at <= statement_timestamp() AS due,
    count(*)
FROM (
    SELECT
        channel,
        status,
        last_error_code,
        next_attempt_at
    FROM notification_records
    WHERE next_attempt_at IS NOT NULL
    ORDER BY next_attempt_at
    LIMIT %(max_rows)s
) AS soonest
GROUP BY channel, status, last_error_code, due
ORDER BY channel, status, last_error_code, due
