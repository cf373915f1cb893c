-- Insert one event for each changed record: what the record holds now, without its texts.
--
-- Of records that carry events themselves (`ingest/signal_webhooks.py`) nothing is told: each event would make another.
--
-- Runs in the transaction of the change, which holds the locks of the rows. So the ids of the events of one record have
-- the order of its changes.
--
-- Index: the primary key of the records.
INSERT INTO notification_events (
    record_id, name, payload, received_by, occurred_at, attempts, next_attempt_at, error
)
SELECT
    record.id,
    change.name,
    JSONB_BUILD_OBJECT(
        'event_id', GEN_RANDOM_UUID(),
        'channel', record.channel,
        'user_id', record.user_id,
        'endpoint_id', record.endpoint_id,
        'request_key', record.request_key,
        'dedupe_key', record.dedupe_key,
        'error_code', record.last_error_code,
        'round', record.round,
        'hold_reason', record.wait_reason
    ),
    '[]',
    record.updated_at,
    0,
    STATEMENT_TIMESTAMP(),
    ''
FROM UNNEST(%(ids)s::bigint[], %(names)s::text[]) AS change (id, name)
INNER JOIN notification_records AS record ON change.id = record.id
WHERE record.kind NOT LIKE 'notification.%%'
ORDER BY record.id
