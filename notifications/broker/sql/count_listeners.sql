-- Count the workers that listen for notifications: the holders of the shared advisory lock (1852797033, 1).
--
-- Index: none.
SELECT count(*)
FROM pg_locks AS held
INNER JOIN pg_database AS own ON held.database = own.oid AND own.datname = current_database()
WHERE
    held.locktype = 'advisory'
    AND held.classid = 1852797033
    AND held.objid = 1
    AND held.objsubid = 2
    AND held.granted
