-- Wake all workers that listen, at once, because more records are due than one of them can send.
--
-- The lock and the time are those of notify_listener.sql.
--
-- Index: none.
SELECT
    CASE
        WHEN pg_try_advisory_xact_lock(1852797033, 1) THEN 'nobody'
        WHEN set_config('lock_timeout', '500ms', TRUE) IS NOT NULL
            THEN pg_notify('notification_wakeups', 'all')::text || 'woken'
    END
