-- Insert an attempt row with the outcome `lost` for each claimed record whose former worker never settled.
--
-- Returns the ids of the records that are still under our lease. The others were settled by their former worker after
-- our claim.
--
-- Indexes: the primary key of the records, attempt_number (record_id, round, number), and the primary key of the
-- counters.
WITH lost AS (
    SELECT
        record.id,
        record.channel,
        lost.round,
        lost.number,
        lost.cause
    FROM
        UNNEST(
            %(ids)s::bigint[], %(leases)s::uuid[], %(rounds)s::int[], %(numbers)s::int[], %(causes)s::text[]
        ) AS lost (id, lease_token, round, number, cause)
    INNER JOIN notification_records AS record ON lost.id = record.id
    WHERE record.status = 'sending' AND record.lease_token = lost.lease_token
),

attempt AS (
    INSERT INTO notification_delivery_attempts (
        record_id, round, number, cause, started_at, outcome, error_code, error, response_excerpt, worker
    )
    SELECT
        id,
        round,
        number,
        cause,
        %(current_time)s,
        'lost',
        %(code)s,
        %(error)s,
        '',
        ''
    FROM lost
    ON CONFLICT DO NOTHING
    RETURNING record_id, outcome, error_code
),

measurements AS (
    SELECT
        lost.channel,
        'attempts' AS measure,
        attempt.outcome,
        attempt.error_code,
        0 AS attempts,
        0 AS seconds
    FROM attempt
    INNER JOIN lost ON attempt.record_id = lost.id
),

counted AS (%(count_measurements)s)

SELECT id FROM lost
