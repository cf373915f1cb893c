-- Hold those of these due records that have to wait for another one of their order key.
--
-- A record that somebody else has locked is being changed, and is left alone.
--
-- Indexes: the primary key, notification_order (channel, order_key, ...), notification_order_in_flight
-- (channel, order_key), notification_order_dead (channel, order_key, id).
WITH waiting AS (
    SELECT notification_records.id
    FROM notification_records
    WHERE
        notification_records.id = ANY(%(ids)s::bigint[])
        AND notification_records.status IN ('pending', 'failed')
        AND notification_records.next_attempt_at <= %(current_time)s
        AND %(blocked)s
    FOR UPDATE SKIP LOCKED
)

UPDATE notification_records
SET
    next_attempt_at = %(current_time)s + %(delay)s * interval '1 second',
    wait_reason = 'order',
    updated_at = %(current_time)s
FROM waiting
WHERE notification_records.id = waiting.id
