-- Take due records under a lease and return them with their endpoints.
--
-- This is the compare-and-set of the delivery: SKIP LOCKED and the new `next_attempt_at` prevent every other claim of
-- the same record. A claim with `ids` takes these records only. The endpoint comes with the claim, so that a send
-- costs no further query. It is the one that the record names, else the user's on its channel without a label.
--
-- Each channel is read by itself, so that due records of a channel without a provider are not read at all. So is each
-- priority, and their records take turns by the time at which they became due and by their priority. A condition on
-- the three columns and the order by them leave the planner no other index: one without the channel would read them.
-- IS NOT NULL is said because PostgreSQL does not conclude it from a comparison of rows, and the index is partial.
-- Records that became due before the `since` of their priority are passed over (`queue_start.py`). The records that are
-- locked but not needed become free when the statement ends.
--
-- A due record that has to wait for another one of its order key is returned and not taken (`ordering/key_order.py`).
-- Its columns from `claimed` are NULL.
--
-- Indexes: notification_due_by_priority (channel, priority, next_attempt_at, id) for the due records, the primary key
-- for `ids` and for the endpoint that a record names, endpoint_of_user for the others, notification_order (channel,
-- order_key, ...) and notification_order_in_flight (channel, order_key) for the records with an order key.
WITH due AS (
    SELECT record.*
    FROM UNNEST(%(channels)s::text[]) AS served (channel)
    CROSS JOIN UNNEST(%(priorities)s::smallint[], %(since)s::float8[]) AS level (priority, since)
    CROSS JOIN
        LATERAL (
            SELECT
                id,
                status,
                lease_token,
                attempt_count,
                next_attempt_at,
                wait_reason,
                order_key,
                channel,
                %(blocked)s AS blocked,
                EXTRACT(EPOCH FROM next_attempt_at)::float8 AS due_since,
                %(turn)s AS turn,
                CASE WHEN max_attempts > 0 THEN max_attempts ELSE %(max_attempts)s END AS allowed,
                COALESCE(expires_at <= %(current_time)s, FALSE) AS message_expired
            FROM notification_records
            WHERE
                next_attempt_at IS NOT NULL
                AND (channel, priority, next_attempt_at)
                >= (served.channel, level.priority, COALESCE(TO_TIMESTAMP(level.since), '-infinity'))
                AND (channel, priority, next_attempt_at) <= (served.channel, level.priority, %(current_time)s)
                AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s::bigint[]))
            ORDER BY channel, priority, next_attempt_at, id
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ) AS record
    ORDER BY record.turn, record.id
    LIMIT %(limit)s
),

claimed AS (
    UPDATE notification_records AS record
    SET
        status = 'sending',
        lease_token = %(token)s,
        attempt_count = record.attempt_count
        + CASE WHEN record.attempt_count < due.allowed AND NOT due.message_expired THEN 1 ELSE 0 END,
        max_attempts = due.allowed,
        wait_reason = '',
        next_attempt_at = %(current_time)s + %(lease)s * interval '1 second',
        updated_at = %(current_time)s
    FROM due
    WHERE record.id = due.id AND NOT due.blocked
    RETURNING
        record.id,
        record.message_uid,
        record.channel,
        record.user_id,
        record.endpoint_id,
        record.trigger_id,
        record.preview_id,
        record.trigger_type,
        record.target_type,
        record.target_id,
        record.dedupe_key,
        record.target_url,
        -- Of a summary that was cut within a character, only the whole characters are sent.
        COALESCE(
            LEFT(record.summary_text, (record.replaced_texts -> 'summary_text' ->> 'shown')::int), record.summary_text
        ) AS summary_text,
        record.fallback_text,
        record.fallback_used,
        record.request_key,
        record.kind,
        record.title,
        record.content::text AS content,
        record.trace_id,
        record.priority,
        record.attempt_count,
        record.max_attempts,
        record.round,
        due.status AS previous_status,
        due.lease_token AS previous_lease,
        due.attempt_count >= due.allowed OR due.message_expired AS exhausted,
        due.message_expired,
        due.wait_reason = 'rate_limited' AS planned,
        due.wait_reason IN ('channel_paused', 'endpoint_failing') AS was_held,
        due.due_since
)

SELECT
    claimed.*,
    due.id AS due_id,
    due.channel AS due_channel,
    due.order_key,
    due.blocked,
    endpoint.enabled,
    endpoint.webhook_url,
    endpoint.auth_type,
    endpoint.bearer_token,
    endpoint.id AS channel_id,
    endpoint.failures,
    endpoint.paused_at IS NOT NULL AS paused,
    EXTRACT(EPOCH FROM endpoint.probe_at - %(current_time)s)::float8 AS probe_in
FROM due
LEFT JOIN claimed ON due.id = claimed.id
LEFT JOIN
    LATERAL (
        SELECT endpoint.*
        FROM user_notification_channels AS endpoint
        WHERE endpoint.id = claimed.endpoint_id
        UNION ALL
        SELECT endpoint.*
        FROM user_notification_channels AS endpoint
        WHERE
            claimed.endpoint_id IS NULL
            AND endpoint.user_id = claimed.user_id
            AND endpoint.channel = claimed.channel
            AND endpoint.label = ''
    ) AS endpoint
    ON TRUE
ORDER BY due.turn, due.id
