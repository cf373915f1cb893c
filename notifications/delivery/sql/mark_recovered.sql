-- Let the next sweeps release held records whose channel is healthy, and which nobody would release.
--
-- A process may have died, or lost PostgreSQL, between holding a record and looking whether the channel has recovered
-- meanwhile. The statement reads one index entry for each endpoint that has held records, however many those are.
--
-- Indexes: notification_held_at_endpoint (endpoint, id) for records that name their endpoint, notification_held_up
-- (user, channel, id) for the others, endpoint_of_user, and the primary key of the endpoints.
WITH RECURSIVE named AS (
    SELECT MIN(endpoint_id) AS id
    FROM notification_records
    WHERE endpoint_id IS NOT NULL AND wait_reason IN ('channel_paused', 'endpoint_failing')
    UNION ALL
    SELECT
        (
            SELECT MIN(record.endpoint_id)
            FROM notification_records AS record
            WHERE record.endpoint_id > named.id AND record.wait_reason IN ('channel_paused', 'endpoint_failing')
        )
    FROM named
    WHERE named.id IS NOT NULL
),

held AS (
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
WHERE
    endpoint.id IN (
        SELECT named.id FROM named
        UNION ALL
        SELECT owned.id
        FROM held
        INNER JOIN user_notification_channels AS owned
            ON held.user_id = owned.user_id AND held.channel = owned.channel AND owned.label = ''
    )
    AND endpoint.paused_at IS NULL
    AND endpoint.probe_at IS NULL
    AND endpoint.release_at IS NULL
