"""Requests go on meanwhile: it adds columns without a rewrite, builds indexes concurrently, and can run again."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from notifications.migrations._online import BuildIndex, WithShortLocks


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('notifications', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        WithShortLocks(
            migrations.CreateModel(
                name='Alert',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('cause', models.CharField(max_length=191, verbose_name='cause')),
                    ('sink', models.CharField(max_length=32, verbose_name='told by')),
                    ('kind', models.CharField(choices=[('dead', 'notifications died'), ('paused', 'channels were paused'), ('late', 'a notification is overdue'), ('sweep', 'sweeps are missing'), ('rejected', 'requests were refused')], max_length=16, verbose_name='kind')),
                    ('facts', models.JSONField(default=dict, verbose_name='facts')),
                    ('count', models.IntegerField(verbose_name='count')),
                    ('first_seen', models.DateTimeField(verbose_name='first seen')),
                    ('last_seen', models.DateTimeField(verbose_name='last seen')),
                    ('telling_until', models.DateTimeField(null=True)),
                    ('told_at', models.DateTimeField(null=True, verbose_name='told')),
                    ('cleared_at', models.DateTimeField(null=True, verbose_name='over since')),
                    ('all_clear_at', models.DateTimeField(null=True, verbose_name='all-clear given')),
                ],
                options={
                    'verbose_name': 'alert',
                    'verbose_name_plural': 'alerts',
                    'db_table': 'notification_alerts',
                    'default_permissions': (),
                },
            ),
            migrations.CreateModel(
                name='DueJob',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('key', models.CharField(max_length=191, unique=True, verbose_name='job key')),
                    ('event', models.CharField(max_length=64, verbose_name='event')),
                    ('payload', models.JSONField(verbose_name='payload')),
                    ('run_at', models.DateTimeField(verbose_name='to run')),
                    ('next_run_at', models.DateTimeField(null=True, verbose_name='next run')),
                    ('lease_token', models.UUIDField(editable=False, null=True)),
                    ('attempts', models.IntegerField(default=0, verbose_name='attempts')),
                    ('last_error', models.CharField(blank=True, max_length=191, verbose_name='error')),
                    ('done_at', models.DateTimeField(null=True, verbose_name='done')),
                    ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='created')),
                ],
                options={
                    'verbose_name': 'due job',
                    'verbose_name_plural': 'due jobs',
                    'db_table': 'notification_due_jobs',
                    'default_permissions': ('view',),
                },
            ),
            migrations.CreateModel(
                name='Heartbeat',
                fields=[
                    ('name', models.CharField(max_length=191, primary_key=True, serialize=False, verbose_name='name')),
                    ('kind', models.CharField(choices=[('beat', 'beat'), ('sweep', 'sweep'), ('worker', 'worker process')], max_length=16, verbose_name='kind')),
                    ('seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='last heard of')),
                ],
                options={
                    'verbose_name': 'heartbeat',
                    'verbose_name_plural': 'heartbeats',
                    'db_table': 'notification_heartbeats',
                    'default_permissions': (),
                },
            ),
            migrations.CreateModel(
                name='ReplayOperation',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('reason', models.CharField(max_length=500, verbose_name='reason')),
                    ('criteria', models.JSONField(help_text='which records; see criteria.py', verbose_name='criteria')),
                    ('as_of', models.DateTimeField(help_text='records that changed later are left alone', verbose_name='as of')),
                    ('rate', models.IntegerField(help_text='records per minute at most; none: no limit', null=True, verbose_name='rate')),
                    ('status', models.CharField(choices=[('queued', 'queued'), ('running', 'running'), ('done', 'done'), ('cancelled', 'cancelled'), ('failed', 'broken off')], default='queued', max_length=16, verbose_name='status')),
                    ('matched', models.IntegerField(help_text='records there were to replay when it was created', verbose_name='matched')),
                    ('done', models.IntegerField(default=0, verbose_name='replayed')),
                    ('walked_to', models.DateTimeField(editable=False, null=True)),
                    ('walked_to_id', models.BigIntegerField(editable=False, null=True)),
                    ('next_batch_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), null=True, verbose_name='next batch')),
                    ('error', models.CharField(blank=True, max_length=191, verbose_name='error')),
                    ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name='created')),
                    ('started_at', models.DateTimeField(null=True, verbose_name='started')),
                    ('finished_at', models.DateTimeField(null=True, verbose_name='finished')),
                ],
                options={
                    'verbose_name': 'replay operation',
                    'verbose_name_plural': 'replay operations',
                    'db_table': 'notification_replay_operations',
                    'default_permissions': (),
                },
            ),
            migrations.CreateModel(
                name='Tally',
                fields=[
                    ('pk', models.CompositePrimaryKey('measure', 'hour', 'channel', 'outcome', 'error_code', 'attempts', 'bucket', 'shard', blank=True, editable=False, primary_key=True, serialize=False)),
                    ('hour', models.DateTimeField()),
                    ('shard', models.SmallIntegerField()),
                    ('channel', models.CharField(max_length=32)),
                    ('measure', models.CharField(choices=[('attempts', 'attempts'), ('deliveries', 'deliveries'), ('replays', 'replays')], max_length=32)),
                    ('outcome', models.CharField(blank=True, max_length=16)),
                    ('error_code', models.CharField(blank=True, max_length=64)),
                    ('attempts', models.SmallIntegerField()),
                    ('bucket', models.SmallIntegerField()),
                    ('count', models.BigIntegerField()),
                    ('seconds', models.FloatField()),
                ],
                options={
                    'db_table': 'notification_tallies',
                    'default_permissions': (),
                },
            ),
            migrations.AddConstraint(
                model_name='alert',
                constraint=models.UniqueConstraint(fields=('cause', 'sink'), name='alert_once'),
            ),
            migrations.AddIndex(
                model_name='duejob',
                index=models.Index(condition=models.Q(('next_run_at__isnull', False)), fields=['next_run_at', 'id'], name='job_due'),
            ),
            migrations.AddIndex(
                model_name='duejob',
                index=models.Index(condition=models.Q(('done_at__isnull', False)), fields=['done_at'], name='job_done'),
            ),
            migrations.AddConstraint(
                model_name='duejob',
                constraint=models.CheckConstraint(condition=models.Q(models.Q(('done_at__isnull', True), ('next_run_at__isnull', False)), models.Q(('done_at__isnull', False), ('lease_token__isnull', True), ('next_run_at__isnull', True)), _connector='OR'), name='job_scheduled_iff_not_done'),
            ),
            migrations.AddField(
                model_name='replayoperation',
                name='created_by',
                field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='ordered by'),
            ),
            migrations.AddIndex(
                model_name='replayoperation',
                index=models.Index(condition=models.Q(('next_batch_at__isnull', False)), fields=['next_batch_at', 'id'], name='replay_due'),
            ),
            migrations.AddConstraint(
                model_name='replayoperation',
                constraint=models.CheckConstraint(condition=models.Q(('status__in', ['queued', 'running', 'done', 'cancelled', 'failed'])), name='replay_status_known'),
            ),
            migrations.AddConstraint(
                model_name='replayoperation',
                constraint=models.CheckConstraint(condition=models.Q(models.Q(('next_batch_at__isnull', False), ('status__in', ('queued', 'running'))), models.Q(models.Q(('status__in', ('queued', 'running')), _negated=True), ('next_batch_at__isnull', True)), _connector='OR'), name='replay_scheduled_iff_unfinished'),
            ),
            migrations.AddConstraint(
                model_name='replayoperation',
                constraint=models.CheckConstraint(condition=models.Q(('rate__isnull', True), ('rate__gte', 1), _connector='OR'), name='replay_rate_positive'),
            ),
            migrations.AddField(
                model_name='usernotificationchannel',
                name='failures',
                field=models.IntegerField(db_default=0, default=0, editable=False, verbose_name='failures in a row'),
            ),
            migrations.AddField(
                model_name='usernotificationchannel',
                name='owner_told_at',
                field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='owner told of the pause'),
            ),
            migrations.AddField(
                model_name='usernotificationchannel',
                name='probe_at',
                field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='next probe'),
            ),
            migrations.AddField(
                model_name='usernotificationchannel',
                name='release_at',
                field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='next release'),
            ),
            migrations.AlterField(
                model_name='usernotificationchannel',
                name='auth_type',
                field=models.CharField(choices=[('none', 'no authentication'), ('bearer', 'bearer token'), ('signature', 'signing secret')], default='none', max_length=16, verbose_name='authentication'),
            ),
            migrations.AlterModelOptions(
                name='notificationrecord',
                options={'default_permissions': ('view',), 'permissions': (('replay_notificationrecord', 'Can replay notifications'), ('cancel_notificationrecord', 'Can cancel notifications'), ('send_now_notificationrecord', 'Can send waiting notifications now')), 'verbose_name': 'notification', 'verbose_name_plural': 'notifications'},
            ),
            migrations.AddField(
                model_name='notificationrecord',
                name='expires_at',
                field=models.DateTimeField(blank=True, null=True, verbose_name='expires'),
            ),
            migrations.AddField(
                model_name='notificationrecord',
                name='wait_reason',
                field=models.CharField(blank=True, choices=[('', 'not held up'), ('channel_paused', 'the channel is paused'), ('endpoint_failing', 'the endpoint keeps failing and is being probed'), ('rate_limited', "the endpoint's rate limit")], db_default='', default='', max_length=16, verbose_name='held up by'),
            ),
            migrations.AddField(
                model_name='notificationrecord',
                name='replay_operation',
                field=models.ForeignKey(db_constraint=False, db_index=False, help_text='the last one that replayed it', null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='notifications.replayoperation', verbose_name='replay operation'),
            ),
            column='expires_at',
        ),
        BuildIndex(
            model_name='notificationrecord',
            index=models.Index(condition=models.Q(('wait_reason__in', ['channel_paused', 'endpoint_failing'])), fields=['user', 'channel', 'id'], name='notification_held_up'),
        ),
        BuildIndex(
            model_name='notificationrecord',
            index=models.Index(fields=['user', 'id'], name='notification_user'),
        ),
        BuildIndex(
            model_name='notificationrecord',
            index=models.Index(condition=models.Q(('preview_id', ''), _negated=True), fields=['preview_id'], name='notification_preview'),
        ),
        BuildIndex(
            model_name='notificationrecord',
            index=models.Index(condition=models.Q(('status', 'dead')), fields=['updated_at', 'id'], name='notification_dead'),
        ),
        BuildIndex(
            model_name='notificationrecord',
            index=models.Index(condition=models.Q(('status__in', ('dead', 'skipped'))), fields=['updated_at', 'id'], include=('status', 'last_error_code', 'channel'), name='notification_undelivered'),
        ),
        BuildIndex(
            model_name='notificationrecord',
            index=models.Index(condition=models.Q(('replay_operation__isnull', False)), fields=['replay_operation', 'id'], name='notification_replayed'),
        ),
        BuildIndex(
            model_name='usernotificationchannel',
            index=models.Index(condition=models.Q(('release_at__isnull', False), ('probe_at__isnull', False), _connector='OR'), fields=['id'], name='channel_to_tend'),
        ),
        BuildIndex(
            model_name='usernotificationchannel',
            index=models.Index(condition=models.Q(('paused_at__isnull', False)), fields=['paused_at'], name='channel_paused'),
        ),
        # After the index that replaces its own.
        WithShortLocks(
            migrations.AlterField(
                model_name='notificationrecord',
                name='user',
                field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='user'),
            ),
        ),
    ]
