-- Delete one batch of jobs that were published long ago, and return the count and the last `done_at`.
--
-- Index: job_done (done_at).
WITH old AS (
    SELECT id
    FROM notification_due_jobs
    WHERE
        done_at >= COALESCE(%(since)s, '-infinity'::timestamptz)
        AND done_at < %(before)s
    ORDER BY done_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),

deleted AS (
    DELETE FROM notification_due_jobs
    WHERE id = ANY(ARRAY(SELECT id FROM old))
    RETURNING done_at
)

SELECT
    0 AS records,
    0 AS dead,
    0 AS attempts,
    0 AS rejected,
    COUNT(*) AS jobs,
    0 AS signals,
    MAX(done_at) AS last_time
FROM deleted
