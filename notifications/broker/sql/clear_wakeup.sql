-- Allow the next notification. A claim runs this just before it reads the due records, so that it sees every record
-- whose wake-up it takes. Nobody else clears the flag: if this worker cannot claim, the others see it.
--
-- Index: none.
SELECT setval('notification_wakeups', 1, FALSE)
WHERE pg_sequence_last_value('notification_wakeups') IS NOT NULL;
