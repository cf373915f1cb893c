-- Undo claims: status, attempt count and lease become what they were before the claim.
--
-- A record that is no longer under our lease is not changed. Returns the ids of those that were.
--
-- Index: the primary key.
UPDATE notification_records AS record
SET
    status = previous.status,
    attempt_count = previous.attempt_count,
    lease_token = previous.lease_token,
    next_attempt_at = %(current_time)s + previous.delay * interval '1 second',
    wait_reason = %(hold_reason)s,
    updated_at = %(current_time)s
FROM
    UNNEST(
        %(ids)s::bigint[], %(tokens)s::uuid[], %(statuses)s::text[], %(counts)s::int[], %(leases)s::uuid[],
        %(delays)s::float8[]
    ) AS previous (id, our_token, status, attempt_count, lease_token, delay)
WHERE
    record.id = previous.id
    AND record.status = 'sending'
    AND record.lease_token = previous.our_token
RETURNING record.id
