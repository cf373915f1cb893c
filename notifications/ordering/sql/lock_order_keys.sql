-- Lock order keys until the end of the transaction, each in the order of its number, so that no two processes deadlock.
--
-- Two keys may share a number. They then wait for each other, and nothing else happens.
--
-- Index: none. It reads no table.
SELECT PG_ADVISORY_XACT_LOCK(ordered.number)
FROM (
    SELECT DISTINCT HASHTEXTEXTENDED(wanted.channel || CHR(10) || wanted.order_key, 20260501) AS number
    FROM UNNEST(%(channels)s::text[], %(keys)s::text[]) AS wanted (channel, order_key)
    ORDER BY number
) AS ordered
