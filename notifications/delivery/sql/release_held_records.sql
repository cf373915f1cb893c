-- Make held records of one channel due, oldest first.
--
-- A healthy endpoint gets up to `batch` records, spread over time by `rate` (records per second). A failing endpoint
-- gets one record, which becomes due at the time of the next probe and stays held. The status `sending` is included:
-- the worker of such a record was lost before the record was held. Returns the id of each, and whether it is not held
-- any more.
--
-- Index: notification_held_up (user, channel, id), and the primary key of the channels.
WITH endpoint AS (
    SELECT
        user_id,
        channel,
        probe_at
    FROM user_notification_channels
    WHERE id = %(channel)s AND paused_at IS NULL
),

held AS (
    SELECT
        record.id,
        endpoint.probe_at
    FROM notification_records AS record
    INNER JOIN endpoint ON record.user_id = endpoint.user_id AND record.channel = endpoint.channel
    WHERE
        record.wait_reason IN ('channel_paused', 'endpoint_failing')
        AND record.status IN ('pending', 'failed', 'sending')
    ORDER BY record.id
    LIMIT (SELECT CASE WHEN size.probe_at IS NULL THEN %(batch)s ELSE 1 END FROM endpoint AS size)
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
