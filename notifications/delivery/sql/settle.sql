-- Store the results of a group of attempts: the attempt rows, the records and the counters, in one statement.
--
-- Returns the ids of the records that were changed by their result. A failure needs its own lease. A success settles
-- even when its lease is lost, because a proven send must stop further sends. The attempt row is written in both
-- cases. It replaces the row of an attempt that was recorded as lost, and its error says so: another worker may have
-- sent the message meanwhile.
--
-- A result counts for the message that was sent, and for no other: after a failover to a standby that lagged,
-- PostgreSQL may use the ids of lost rows again, and then `message_uid` differs.
--
-- Indexes: the primary key of the records, attempt_number (record_id, round, number), and the primary key of the
-- counters.
WITH result AS (
    SELECT result.*
    FROM JSON_TO_RECORDSET(%(results)s) AS result (
        id bigint,
        message_uid uuid,
        lease_token uuid,
        status text,
        delay float8,
        error_code text,
        error text,
        message_id text,
        request text,
        response text,
        round int,
        number int,
        cause text,
        age float8,
        duration int,
        outcome text,
        attempt_code text,
        attempt_error text,
        http_status int,
        excerpt text,
        made bool,
        channel text,
        hold_reason text
    )
),

attempt AS (
    INSERT INTO notification_delivery_attempts (
        record_id, round, number, cause, started_at, duration_ms, outcome, error_code, error, http_status,
        response_excerpt, worker
    )
    SELECT
        record.id,
        result.round,
        result.number,
        result.cause,
        %(current_time)s - result.age * interval '1 second',
        result.duration,
        result.outcome,
        result.attempt_code,
        result.attempt_error,
        result.http_status,
        result.excerpt,
        %(worker)s
    FROM result
    INNER JOIN notification_records AS record
        ON result.id = record.id AND record.message_uid IS NOT DISTINCT FROM result.message_uid
    WHERE result.made
    ON CONFLICT (record_id, round, number) DO UPDATE
        SET
            cause = excluded.cause,
            worker = excluded.worker,
            started_at = excluded.started_at,
            duration_ms = excluded.duration_ms,
            outcome = excluded.outcome,
            error_code = excluded.error_code,
            error = CONCAT_WS(
                '; ',
                NULLIF(excluded.error, ''),
                CASE WHEN excluded.outcome = 'success' THEN %(late_success)s ELSE %(late_failure)s END
            ),
            http_status = excluded.http_status,
            response_excerpt = excluded.response_excerpt
        WHERE notification_delivery_attempts.outcome = 'lost'
    RETURNING record_id, outcome, error_code, duration_ms
),

settled AS (
    UPDATE notification_records AS record
    SET
        status = result.status,
        next_attempt_at = %(current_time)s + result.delay * interval '1 second',
        lease_token = NULL,
        wait_reason = result.hold_reason,
        max_attempts = CASE
            WHEN result.status = 'failed' THEN GREATEST(record.max_attempts, record.attempt_count + 1)
            ELSE record.max_attempts
        END,
        last_error_code = result.error_code,
        last_error = result.error,
        provider_message_id = CASE WHEN result.made THEN result.message_id ELSE record.provider_message_id END,
        provider_request = CASE WHEN result.made THEN result.request::jsonb ELSE record.provider_request END,
        provider_response = CASE WHEN result.made THEN result.response::jsonb ELSE record.provider_response END,
        sent_at = CASE WHEN result.status = 'sent' THEN %(current_time)s ELSE record.sent_at END,
        updated_at = %(current_time)s
    FROM result
    WHERE
        record.id = result.id
        AND record.message_uid IS NOT DISTINCT FROM result.message_uid
        AND (
            (record.status = 'sending' AND record.lease_token = result.lease_token)
            OR (result.status = 'sent' AND record.status <> 'sent')
        )
    RETURNING
        record.id,
        record.channel,
        record.status,
        record.attempt_count,
        record.round,
        EXTRACT(EPOCH FROM record.updated_at - record.created_at)::float8 AS seconds
),

measurements AS (
    SELECT
        result.channel,
        'attempts' AS measure,
        attempt.outcome,
        attempt.error_code,
        0 AS attempts,
        attempt.duration_ms / 1000.0 AS seconds
    FROM attempt
    INNER JOIN result ON attempt.record_id = result.id
    UNION ALL
    SELECT
        channel,
        CASE WHEN round = 0 THEN 'deliveries' ELSE 'replays' END AS measure,
        status AS outcome,
        '' AS error_code,
        attempt_count AS attempts,
        seconds
    FROM settled
    WHERE status <> 'failed'
),

counted AS (%(count_measurements)s)

SELECT id FROM settled
