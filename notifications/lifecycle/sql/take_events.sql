-- Take the next due events: count an attempt, and put the next one off, so that an event whose receiver kills the
-- process is not tried at once by the next process, and not for ever.
--
-- Only the first event of a record is taken. One that was given up (no `next_attempt_at`) is passed over, as its
-- successors would wait for ever. Events that nobody hears in this process are left to others: during a deployment its
-- new processes may have receivers that this one does not have. Those that nobody takes are found once they are old.
--
-- Indexes: event_due (next_attempt_at, id) in its order, event_of_record (record, id).
WITH due AS (
    SELECT event.id
    FROM notification_events AS event
    WHERE
        event.next_attempt_at <= STATEMENT_TIMESTAMP()
        AND (
            event.name = ANY(%(names)s::text[])
            OR event.occurred_at < STATEMENT_TIMESTAMP() - %(abandoned)s * interval '1 second'
        )
        AND NOT EXISTS (
            SELECT FROM notification_events AS earlier
            WHERE
                earlier.record_id = event.record_id
                AND earlier.id < event.id
                AND earlier.next_attempt_at IS NOT NULL
        )
    ORDER BY event.next_attempt_at, event.id
    LIMIT %(limit)s
    FOR UPDATE OF event SKIP LOCKED
)

UPDATE notification_events AS event
SET
    attempts = event.attempts + 1,
    next_attempt_at = STATEMENT_TIMESTAMP()
    + LEAST(%(first_delay)s * 2 ^ LEAST(event.attempts, 30), %(longest_delay)s) * interval '1 second'
FROM due
WHERE event.id = due.id
RETURNING event.id, event.attempts
