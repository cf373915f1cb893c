-- Make held records of one channel due, oldest first.
--
-- A healthy endpoint gets up to `batch` records, spread over time by `rate` (records per second). A failing endpoint
-- gets one record, which becomes due at the time of the next probe and stays held. The status `sending` is included:
-- the worker of such a record was lost before the record was held. Returns the id of each, and whether it is not held
-- any more.
--
-- Indexes: notification_held_at_endpoint (endpoint, id) for records that name the endpoint, notification_held_up (user,
-- channel, id) for the others, and the primary keys.
WITH endpoint AS (
    SELECT
        id,
        user_id,
        channel,
        label,
        probe_at
    FROM user_notification_channels
    WHERE id = %(channel)s AND paused_at IS NULL
),

waiting AS (
    SELECT record.id
    FROM endpoint
    CROSS JOIN
        LATERAL (
            (
                SELECT id
                FROM notification_records
                WHERE
                    endpoint_id = endpoint.id
                    AND wait_reason IN ('channel_paused', 'endpoint_failing')
                    AND status IN ('pending', 'failed', 'sending')
                ORDER BY id
                LIMIT %(batch)s
            )
            UNION ALL
            (
                SELECT id
                FROM notification_records
                WHERE
                    endpoint.label = ''
                    AND endpoint_id IS NULL
                    AND user_id = endpoint.user_id
                    AND channel = endpoint.channel
                    AND wait_reason IN ('channel_paused', 'endpoint_failing')
                    AND status IN ('pending', 'failed', 'sending')
                ORDER BY id
                LIMIT %(batch)s
            )
        ) AS record
    ORDER BY record.id
    LIMIT (SELECT CASE WHEN size.probe_at IS NULL THEN %(batch)s ELSE 1 END FROM endpoint AS size)
),

held AS (
    SELECT
        record.id,
        (SELECT endpoint.probe_at FROM endpoint) AS probe_at
    FROM notification_records AS record
    WHERE
        record.id IN (SELECT waiting.id FROM waiting)
        AND record.wait_reason IN ('channel_paused', 'endpoint_failing')
        AND record.status IN ('pending', 'failed', 'sending')
    ORDER BY record.id
    FOR UPDATE OF record SKIP LOCKED
),

placed AS (
    SELECT
        id,
        probe_at,
        ROW_NUMBER() OVER (ORDER BY id) - 1 AS place
    FROM held
)

UPDATE notification_records AS record
SET
    next_attempt_at = COALESCE(placed.probe_at, %(current_time)s + placed.place / %(rate)s * interval '1 second'),
    wait_reason = CASE WHEN placed.probe_at IS NULL THEN '' ELSE record.wait_reason END,
    updated_at = %(current_time)s
FROM placed
WHERE record.id = placed.id
RETURNING record.id, placed.probe_at IS NULL AS released
