"""Lets PostgreSQL vacuum the table of the records early. See docs/operations.md."""

from django.db import migrations

from notifications.migrations._online import WithShortLocks

SET = """
ALTER TABLE notification_records SET (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_limit = 2000
)
"""
RESET = """
ALTER TABLE notification_records RESET (
    autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_limit
)
"""


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0009_wakeups")]

    operations = [WithShortLocks(migrations.RunSQL(SET, RESET))]
