-- Make the first record of each order key due, if it is held for its order and has to wait for no other one any more.
--
-- A record that somebody else has locked is being changed, and is left alone.
--
-- Indexes: notification_order (channel, order_key, ...), notification_order_in_flight (channel,
-- order_key), notification_order_dead (channel, order_key, id), and the primary key.
WITH head AS (
    SELECT first_one.id
    FROM UNNEST(%(channels)s::text[], %(keys)s::text[]) AS wanted (channel, order_key)
    CROSS JOIN
        LATERAL (
            SELECT record.id
            FROM notification_records AS record
            WHERE
                record.channel = wanted.channel
                AND record.order_key = wanted.order_key
                AND record.order_key <> ''
                AND record.next_attempt_at IS NOT NULL
            ORDER BY record.channel, record.order_key, (record.round = 0), record.id
            LIMIT 1
        ) AS first_one
),

free AS (
    SELECT notification_records.id
    FROM notification_records
    INNER JOIN head ON notification_records.id = head.id
    WHERE notification_records.wait_reason = 'order' AND NOT %(blocked)s
    FOR UPDATE OF notification_records SKIP LOCKED
)

UPDATE notification_records
SET
    next_attempt_at = %(current_time)s,
    wait_reason = '',
    updated_at = %(current_time)s
FROM free
WHERE notification_records.id = free.id
