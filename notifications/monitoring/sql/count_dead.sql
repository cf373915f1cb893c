-- Count dead records by channel and error code: those of the period, and the recent ones.
--
-- At most max_rows are read, the newest first.
--
-- Index: notification_dead (updated_at, id), backwards.
SELECT
    channel,
    last_error_code,
    count(*) FILTER (WHERE updated_at > statement_timestamp() - make_interval(secs => %(period)s)) AS in_period,
    count(*) FILTER (WHERE updated_at > statement_timestamp() - make_interval(secs => %(recent)s)) AS recent
FROM (
    SELECT
        channel,
        last_error_code,
        updated_at
    FROM notification_records
    WHERE
        status = 'dead'
        AND updated_at > statement_timestamp() - make_interval(secs => greatest(%(period)s, %(recent)s))
    ORDER BY updated_at DESC, id DESC
    LIMIT %(max_rows)s
) AS newest
GROUP BY channel, last_error_code
ORDER BY in_period DESC, channel ASC, last_error_code ASC
