"""Adds the flag "a wake-up is pending": a sequence, because its value is changed in place and without a transaction.

Unlogged, so that nobody waits for the disk. PostgreSQL before 15 has no such sequences; it flushes its log once for
each wake-up there.
"""

from django.db import migrations

CREATE = """
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 150000 THEN
        CREATE UNLOGGED SEQUENCE IF NOT EXISTS notification_wakeups;
    ELSE
        CREATE SEQUENCE IF NOT EXISTS notification_wakeups;
    END IF;
END
$$
"""


class Migration(migrations.Migration):
    dependencies = [("notifications", "0008_indexes_of_the_list")]

    operations = [migrations.RunSQL(CREATE, "DROP SEQUENCE IF EXISTS notification_wakeups")]
