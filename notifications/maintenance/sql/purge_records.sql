-- Delete one batch of old final records with their attempts, and return the counts and the last `created_at`.
--
-- A record is as old as its last change, so that a record which was scheduled far ahead or replayed recently is not
-- old. A record is created before it is changed, so the index on `created_at` finds every old one. `since` skips the
-- index entries of rows that earlier batches deleted: they stay in the index until a vacuum. A locked row is left to
-- the next run. PostgreSQL checks a row again that changed before it was locked.
--
-- Indexes: the one on notification_records.created_at, attempt_number for the attempts.
WITH old AS (
    SELECT id
    FROM notification_records
    WHERE
        created_at >= COALESCE(%(since)s, '-infinity'::timestamptz)
        AND created_at < %(before)s
        AND updated_at < %(before)s
        AND status = ANY(%(final)s)
    ORDER BY created_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),

attempts AS (
    DELETE FROM notification_delivery_attempts
    WHERE record_id = ANY(ARRAY(SELECT id FROM old))
    RETURNING id
),

deleted AS (
    DELETE FROM notification_records
    WHERE id = ANY(ARRAY(SELECT id FROM old))
    RETURNING status, created_at
)

SELECT
    COUNT(*) AS records,
    COUNT(*) FILTER (WHERE status = 'dead') AS dead,
    (SELECT COUNT(*) FROM attempts) AS attempts,
    0 AS rejected,
    0 AS jobs,
    0 AS signals,
    MAX(created_at) AS last_time
FROM deleted
