-- The service's claim.sql without its guards: no row lock, and the record stays due.
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
        next_attempt_at = record.next_attempt_at,
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
