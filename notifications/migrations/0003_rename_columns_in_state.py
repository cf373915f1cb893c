"""Attributes get the field's terms; the columns keep their names, so that no statement reaches the database."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q

HELD = ["channel_paused", "endpoint_failing"]


class Migration(migrations.Migration):
    dependencies = [("notifications", "0002_operators_and_endpoints")]

    operations = [
        # The table keeps its name, so this renames the content type and nothing else.
        migrations.RenameModel("Tally", "Counter"),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex("NotificationRecord", "notification_held_up"),
                migrations.RenameField("NotificationRecord", "wait_reason", "hold_reason"),
                migrations.AddIndex(
                    "NotificationRecord",
                    models.Index(
                        fields=("user", "channel", "id"),
                        name="notification_held_up",
                        condition=Q(hold_reason__in=HELD),
                    ),
                ),
                migrations.RenameField("UserNotificationChannel", "owner_told_at", "owner_notified_at"),
                migrations.RemoveConstraint("Alert", "alert_once"),
                migrations.RenameField("Alert", "sink", "receiver"),
                migrations.RenameField("Alert", "facts", "details"),
                migrations.RenameField("Alert", "telling_until", "claimed_until"),
                migrations.RenameField("Alert", "told_at", "sent_at"),
                migrations.RenameField("Alert", "cleared_at", "resolved_at"),
                migrations.RenameField("Alert", "all_clear_at", "resolution_sent_at"),
                migrations.AddConstraint(
                    "Alert", models.UniqueConstraint(fields=("cause", "receiver"), name="alert_once")
                ),
                migrations.RenameField("ReplayOperation", "walked_to", "cursor_at"),
                migrations.RenameField("ReplayOperation", "walked_to_id", "cursor_id"),
                # Column names, labels and choices: Django keeps them in the state only.
                migrations.AlterField(
                    model_name='alert',
                    name='claimed_until',
                    field=models.DateTimeField(db_column='telling_until', null=True),
                ),
                migrations.AlterField(
                    model_name='alert',
                    name='kind',
                    field=models.CharField(choices=[('dead', 'notifications became dead'), ('paused', 'channels were paused'), ('late', 'a notification is overdue'), ('sweep', 'sweeps are missing'), ('rejected', 'requests were rejected'), ('workers', 'no worker is running'), ('beat', 'beat is silent'), ('redis', 'Redis does not answer'), ('migrations', 'migrations are not applied')], max_length=16, verbose_name='kind'),
                ),
                migrations.AlterField(
                    model_name='alert',
                    name='receiver',
                    field=models.CharField(db_column='sink', max_length=32, verbose_name='receiver'),
                ),
                migrations.AlterField(
                    model_name='alert',
                    name='resolution_sent_at',
                    field=models.DateTimeField(db_column='all_clear_at', null=True, verbose_name='resolution sent'),
                ),
                migrations.AlterField(
                    model_name='alert',
                    name='resolved_at',
                    field=models.DateTimeField(db_column='cleared_at', null=True, verbose_name='resolved'),
                ),
                migrations.AlterField(
                    model_name='alert',
                    name='sent_at',
                    field=models.DateTimeField(db_column='told_at', null=True, verbose_name='sent'),
                ),
                migrations.AlterField(
                    model_name='deliveryattempt',
                    name='cause',
                    field=models.CharField(choices=[('event', 'first send'), ('sweep', 'scheduled retry'), ('replay', 'replay by an operator'), ('recovery', 'recovery after a lost worker')], max_length=16, verbose_name='cause'),
                ),
                migrations.AlterField(
                    model_name='deliveryattempt',
                    name='outcome',
                    field=models.CharField(choices=[('success', 'delivered'), ('temporary_fail', 'temporary failure'), ('permanent_fail', 'permanent failure'), ('skipped', 'not sent on purpose'), ('lost', 'worker lost, the message may have been delivered')], max_length=16, verbose_name='outcome'),
                ),
                migrations.AlterField(
                    model_name='notificationrecord',
                    name='hold_reason',
                    field=models.CharField(blank=True, choices=[('', 'not held'), ('channel_paused', 'the channel is paused'), ('endpoint_failing', 'the endpoint is failing and is being probed'), ('rate_limited', "the endpoint's rate limit")], db_column='wait_reason', db_default='', default='', max_length=16, verbose_name='held because'),
                ),
                migrations.AlterField(
                    model_name='notificationrecord',
                    name='status',
                    field=models.CharField(choices=[('pending', 'pending'), ('sending', 'sending'), ('sent', 'sent'), ('failed', 'waiting to retry'), ('dead', 'dead, action needed'), ('skipped', 'skipped')], default='pending', max_length=16, verbose_name='status'),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='cursor_at',
                    field=models.DateTimeField(db_column='walked_to', editable=False, null=True),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='cursor_id',
                    field=models.BigIntegerField(db_column='walked_to_id', editable=False, null=True),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='status',
                    field=models.CharField(choices=[('queued', 'queued'), ('running', 'running'), ('done', 'done'), ('cancelled', 'cancelled'), ('failed', 'stopped by an error')], default='queued', max_length=16, verbose_name='status'),
                ),
                migrations.AlterField(
                    model_name='usernotificationchannel',
                    name='last_test_status',
                    field=models.CharField(blank=True, choices=[('', 'never tested'), ('success', 'succeeded'), ('failed', 'failed')], default='', max_length=16, verbose_name='last test'),
                ),
                migrations.AlterField(
                    model_name='usernotificationchannel',
                    name='owner_notified_at',
                    field=models.DateTimeField(blank=True, db_column='owner_told_at', editable=False, null=True, verbose_name='owner notified of the pause'),
                ),
                migrations.AlterField(
                    model_name='alert',
                    name='details',
                    field=models.JSONField(db_column='facts', default=dict, verbose_name='details'),
                ),
                migrations.AlterField(
                    model_name='duejob',
                    name='run_at',
                    field=models.DateTimeField(verbose_name='scheduled for'),
                ),
                migrations.AlterField(
                    model_name='heartbeat',
                    name='seen_at',
                    field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='last heartbeat'),
                ),
                migrations.AlterField(
                    model_name='notificationrecord',
                    name='replay_operation',
                    field=models.ForeignKey(db_constraint=False, db_index=False, help_text='the last operation that replayed this notification', null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='notifications.replayoperation', verbose_name='replay operation'),
                ),
                migrations.AlterField(
                    model_name='notificationrecord',
                    name='round',
                    field=models.IntegerField(default=0, help_text='0 for the first send, plus 1 for each replay', verbose_name='round'),
                ),
                migrations.AlterField(
                    model_name='notificationrecord',
                    name='sent_at',
                    field=models.DateTimeField(null=True, verbose_name='delivered at'),
                ),
                migrations.AlterField(
                    model_name='rejectedrequest',
                    name='errors',
                    field=models.JSONField(verbose_name='reasons'),
                ),
                migrations.AlterField(
                    model_name='rejectedrequest',
                    name='payload',
                    field=models.TextField(help_text='payload as received', verbose_name='payload'),
                ),
                migrations.AlterField(
                    model_name='rejectedrequest',
                    name='source',
                    field=models.CharField(max_length=64, verbose_name='source'),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='as_of',
                    field=models.DateTimeField(help_text='records that change after this time are not replayed', verbose_name='as of'),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='created_by',
                    field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='started by'),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='criteria',
                    field=models.JSONField(help_text='selects the records to replay', verbose_name='criteria'),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='matched',
                    field=models.IntegerField(help_text='records that matched when the operation was created', verbose_name='matched'),
                ),
                migrations.AlterField(
                    model_name='replayoperation',
                    name='rate',
                    field=models.IntegerField(help_text='maximum records per minute; empty: no limit', null=True, verbose_name='rate'),
                ),
                migrations.AlterField(
                    model_name='usernotificationchannel',
                    name='enabled',
                    field=models.BooleanField(default=True, verbose_name='enabled'),
                ),
            ],
        ),
    ]
