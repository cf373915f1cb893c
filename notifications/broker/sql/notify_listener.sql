-- Wake the workers that listen, unless a wake-up is pending already. Runs in a transaction of its own.
--
-- Each listener holds the shared advisory lock (1852797033, 1), so this gets it only if there is none. The sequence is
-- the flag "a wake-up is pending": who gets 1 has set it, and sends the notification. A sequence keeps no old versions,
-- so a long transaction elsewhere makes it no slower. A commit with a notification takes a lock of the whole server; it
-- gets the lock within this time, or fails.
--
-- Index: none.
SELECT
    CASE
        WHEN pg_try_advisory_xact_lock(1852797033, 1) THEN 'nobody'
        WHEN nextval('notification_wakeups') > 1 THEN 'pending'
        WHEN set_config('lock_timeout', '500ms', TRUE) IS NOT NULL
            THEN pg_notify('notification_wakeups', '')::text || 'woken'
    END
