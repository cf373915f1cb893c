-- Counts records that are not final by channel, status, error code and whether they are due. Reads only the first
-- max_rows of the index notification_due, because a backlog may be too large to read whole.
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
