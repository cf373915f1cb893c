-- Delete one batch of old rejected requests, and return the count and the last `created_at`.
--
-- Index: the one on notification_rejected_requests.created_at.
WITH old AS (
    SELECT id
    FROM notification_rejected_requests
    WHERE
        created_at >= COALESCE(%(since)s, '-infinity'::timestamptz)
        AND created_at < %(before)s
    ORDER BY created_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),

deleted AS (
    DELETE FROM notification_rejected_requests
    WHERE id = ANY(ARRAY(SELECT id FROM old))
    RETURNING created_at
)

SELECT
    0 AS records,
    0 AS dead,
    0 AS attempts,
    COUNT(*) AS rejected,
    0 AS jobs,
    0 AS signals,
    MAX(created_at) AS last_time
FROM deleted
