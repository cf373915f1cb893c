-- Read both ends of the queue of each channel and priority: the records that are due for the longest and for the
-- shortest time.
--
-- Nothing is locked. However long the queues are, at most `oldest` + `newest` rows of each are read. Records that
-- became due before the `since` of their priority are passed over. PostgreSQL keeps the index entries of claimed
-- records while an old snapshot is open, for example that of pg_dump, and reads all of them again each time.
--
-- Index: notification_due_by_priority (channel, priority, next_attempt_at, id), in its order and backwards.
SELECT
    ends.id,
    served.channel,
    level.priority,
    ends.user_id,
    ends.endpoint_id,
    EXTRACT(EPOCH FROM ends.next_attempt_at)::float8 AS due,
    ends.turn,
    ends.ordered,
    ends.newest
FROM UNNEST(%(channels)s::text[]) AS served (channel)
CROSS JOIN UNNEST(%(priorities)s::smallint[], %(since)s::float8[]) AS level (priority, since)
CROSS JOIN
    LATERAL (
        (
            SELECT
                id,
                user_id,
                endpoint_id,
                next_attempt_at,
                %(turn)s AS turn,
                order_key <> '' AS ordered,
                FALSE AS newest
            FROM notification_records
            WHERE
                next_attempt_at IS NOT NULL
                AND (channel, priority, next_attempt_at)
                >= (served.channel, level.priority, COALESCE(TO_TIMESTAMP(level.since), '-infinity'))
                AND (channel, priority, next_attempt_at) <= (served.channel, level.priority, %(current_time)s)
            ORDER BY channel, priority, next_attempt_at, id
            LIMIT %(oldest)s
        )
        UNION ALL
        (
            SELECT
                id,
                user_id,
                endpoint_id,
                next_attempt_at,
                %(turn)s AS turn,
                order_key <> '' AS ordered,
                TRUE AS newest
            FROM notification_records
            WHERE
                next_attempt_at IS NOT NULL
                AND (channel, priority, next_attempt_at) >= (served.channel, level.priority, '-infinity')
                AND (channel, priority, next_attempt_at) <= (served.channel, level.priority, %(current_time)s)
            ORDER BY channel DESC, priority DESC, next_attempt_at DESC, id DESC
            LIMIT %(newest)s
        )
    ) AS ends
