-- Return the seconds until the next record of these channels becomes due, if that is soon; else NULL.
--
-- Records that are being sent do not count: they become due only if their worker is lost.
--
-- Index: notification_due_by_priority (channel, priority, next_attempt_at, id), in its order.
SELECT EXTRACT(EPOCH FROM MIN(soonest.next_attempt_at) - %(current_time)s)::float8
FROM UNNEST(%(channels)s::text[]) AS served (channel)
CROSS JOIN UNNEST(%(priorities)s::smallint[]) AS level (priority)
CROSS JOIN
    LATERAL (
        SELECT next_attempt_at
        FROM notification_records
        WHERE
            next_attempt_at IS NOT NULL
            AND status <> 'sending'
            AND (channel, priority, next_attempt_at) > (served.channel, level.priority, %(current_time)s)
            AND (channel, priority, next_attempt_at)
            <= (served.channel, level.priority, %(current_time)s + %(within)s * interval '1 second')
        ORDER BY channel, priority, next_attempt_at
        LIMIT 1
    ) AS soonest
