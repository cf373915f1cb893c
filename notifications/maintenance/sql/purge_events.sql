-- Delete one batch of events that were given up long ago, and return the count and the last `occurred_at`.
--
-- One that still waits is kept, however old: its receivers may have been stopped for days.
--
-- Index: event_given_up (occurred_at).
WITH old AS (
    SELECT id
    FROM notification_events
    WHERE
        occurred_at >= COALESCE(%(since)s, '-infinity'::timestamptz)
        AND occurred_at < %(before)s
        AND next_attempt_at IS NULL
    ORDER BY occurred_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),

deleted AS (
    DELETE FROM notification_events
    WHERE id = ANY(ARRAY(SELECT id FROM old))
    RETURNING occurred_at
)

SELECT
    0 AS records,
    0 AS dead,
    0 AS attempts,
    0 AS rejected,
    0 AS jobs,
    COUNT(*) AS signals,
    MAX(occurred_at) AS last_time
FROM deleted
