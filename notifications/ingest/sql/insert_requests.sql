-- Insert one record for each request whose dedupe key is new, and return the new records.
--
-- A key that exists already is skipped, also when another transaction inserts it at the same time. The rows are
-- inserted in the order of the key, so that two bulk requests cannot deadlock. The collation "C" orders as Python does,
-- which cuts a large call into batches.
--
-- Index: notification_dedupe (dedupe_key, channel).
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, replaced_texts, trace_id, priority, status, attempt_count, max_attempts,
    round, next_attempt_at, expires_at, last_error_code, last_error, provider_message_id, message_uid, created_at,
    updated_at, endpoint_id, request_key, order_key, kind, title, content
)
SELECT
    channel,
    user_id,
    trigger_id,
    preview_id,
    trigger_type,
    target_type,
    target_id,
    dedupe_key,
    target_url,
    summary_text,
    fallback_text,
    fallback_used,
    replaced_texts::jsonb,
    trace_id,
    priority,
    'pending',
    0,
    %(max_attempts)s,
    0,
    COALESCE(%(deliver_at)s, %(current_time)s),
    %(expires_at)s,
    '',
    '',
    '',
    GEN_RANDOM_UUID(),
    %(current_time)s,
    %(current_time)s,
    endpoint_id,
    request_key,
    order_key,
    kind,
    title,
    content::jsonb
FROM
    UNNEST(
        %(channel)s::text[], CAST(%(user_id)s AS %(user_key)s[]), %(trigger_id)s::text[], %(preview_id)s::text[],
        %(trigger_type)s::text[], %(target_type)s::text[], %(target_id)s::bigint[], %(dedupe_key)s::text[],
        %(target_url)s::text[], %(summary_text)s::text[], %(fallback_text)s::text[], %(fallback_used)s::bool[],
        %(replaced_texts)s::text[], %(trace_id)s::text[], %(priority)s::smallint[], %(endpoint_id)s::bigint[],
        %(request_key)s::text[], %(order_key)s::text[], %(kind)s::text[], %(title)s::text[], %(content)s::text[]
    ) AS request (
        channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
        summary_text, fallback_text, fallback_used, replaced_texts, trace_id, priority, endpoint_id, request_key,
        order_key, kind, title, content
    )
ORDER BY dedupe_key COLLATE "C", channel COLLATE "C"
ON CONFLICT (dedupe_key, channel) DO NOTHING
RETURNING id, channel, dedupe_key, user_id, request_key, replaced_texts::text
