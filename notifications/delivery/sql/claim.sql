-- Take due records under a lease and return them with the endpoint of their user.
--
-- This is the compare-and-set of the delivery: SKIP LOCKED and the new `next_attempt_at` prevent every other claim of
-- the same record. A claim with `record_id` takes this record only. The endpoint comes with the claim, so that a send
-- costs no further query.
--
-- Indexes: notification_due (next_attempt_at, id) for the due records, the primary key for `record_id`,
-- one_channel_per_user for the endpoint.
WITH due AS (
    SELECT
        id,
        status,
        lease_token,
        attempt_count,
        next_attempt_at,
        CASE WHEN max_attempts > 0 THEN max_attempts ELSE %(max_attempts)s END AS allowed,
        COALESCE(expires_at <= %(current_time)s, FALSE) AS message_expired
    FROM notification_records
    WHERE
        next_attempt_at <= %(current_time)s
        AND channel = ANY(%(channels)s)
        AND (%(record_id)s::bigint IS NULL OR id = %(record_id)s)
    ORDER BY next_attempt_at, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
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
    WHERE record.id = due.id
    RETURNING
        record.id,
        record.message_uid,
        record.channel,
        record.user_id,
        record.trigger_id,
        record.preview_id,
        record.trigger_type,
        record.target_type,
        record.target_id,
        record.dedupe_key,
        record.target_url,
        record.summary_text,
        record.fallback_text,
        record.fallback_used,
        record.trace_id,
        record.attempt_count,
        record.max_attempts,
        record.round,
        due.status AS previous_status,
        due.lease_token AS previous_lease,
        due.attempt_count >= due.allowed OR due.message_expired AS exhausted,
        due.message_expired,
        due.next_attempt_at AS was_due
)

SELECT
    claimed.*,
    endpoint.enabled,
    endpoint.webhook_url,
    endpoint.auth_type,
    endpoint.bearer_token,
    endpoint.id AS channel_id,
    endpoint.failures,
    endpoint.paused_at IS NOT NULL AS paused,
    EXTRACT(EPOCH FROM endpoint.probe_at - %(current_time)s)::float8 AS probe_in
FROM claimed
LEFT JOIN user_notification_channels AS endpoint
    ON claimed.user_id = endpoint.user_id AND claimed.channel = endpoint.channel
ORDER BY claimed.was_due, claimed.id
