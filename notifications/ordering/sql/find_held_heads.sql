-- Return which of these order keys have a first record that is held for its order.
--
-- Index: notification_order (channel, order_key, ...).
SELECT
    wanted.channel,
    wanted.order_key
FROM UNNEST(%(channels)s::text[], %(keys)s::text[]) AS wanted (channel, order_key)
CROSS JOIN
    LATERAL (
        SELECT record.wait_reason
        FROM notification_records AS record
        WHERE
            record.channel = wanted.channel
            AND record.order_key = wanted.order_key
            AND record.order_key <> ''
            AND record.next_attempt_at IS NOT NULL
        ORDER BY record.channel, record.order_key, (record.round = 0), record.id
        LIMIT 1
    ) AS first_one
WHERE first_one.wait_reason = 'order'
