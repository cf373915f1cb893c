-- Return whether a wake-up is pending, and whether this listener is the first one now.
--
-- The first listener holds the advisory lock (1852797033, 2) as long as it is connected. The usage is read because a
-- full queue of notifications that has become empty accepts none before.
--
-- Index: none.
SELECT
    pg_sequence_last_value('notification_wakeups') IS NOT NULL AS pending,
    CASE WHEN %(first)s THEN TRUE ELSE pg_try_advisory_lock(1852797033, 2) END AS first,
    pg_notification_queue_usage() AS usage
