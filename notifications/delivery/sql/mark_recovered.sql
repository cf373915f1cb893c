-- Let the next sweeps release held records whose channel is healthy, and which nobody would release.
--
-- A process may have died, or lost PostgreSQL, between holding a record and looking whether the channel has recovered
-- meanwhile. The statement reads one index entry for each endpoint that has held records, however many those are.
--
-- Index: notification_held_up (user, channel, id), and one_channel_per_user.
WITH RECURSIVE held AS (
    (
        SELECT
            user_id,
            channel
        FROM notification_records
        WHERE wait_reason IN ('channel_paused', 'endpoint_failing')
        ORDER BY user_id, channel
        LIMIT 1
    )
    UNION ALL
    SELECT
        following.user_id,
        following.channel
    FROM held
    CROSS JOIN
        LATERAL (
            SELECT
                record.user_id,
                record.channel
            FROM notification_records AS record
            WHERE
                record.wait_reason IN ('channel_paused', 'endpoint_failing')
                AND (record.user_id, record.channel) > (held.user_id, held.channel)
            ORDER BY record.user_id, record.channel
            LIMIT 1
        ) AS following
)

UPDATE user_notification_channels AS endpoint
SET release_at = %(current_time)s
FROM held
WHERE
    endpoint.user_id = held.user_id
    AND endpoint.channel = held.channel
    AND endpoint.paused_at IS NULL
    AND endpoint.probe_at IS NULL
    AND endpoint.release_at IS NULL
