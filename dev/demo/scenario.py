"""The scenario: what is asked for, through which entrance, and what has to come of it.

Only public entrances are used, as any project would. Django must be set up before this module is imported.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from dev.demo.environment import DemoEnvironment
from dev.environment import ROOT
from dev.other_app import other_app
from dev.waiting import wait_until
from notifications.api import Mention, notify, request_notification, request_notifications, resume_channel, schedule_job
from notifications.ingest.payload import NotificationPayload
from notifications.ingest.validation import InvalidNotification
from notifications.models import NotificationRecord, RejectedRequest, UserNotificationChannel

PATHS = {"feishu": "/flow/api/trigger-webhook/", "feishu_bot": "/open-apis/bot/v2/hook/"}
"""Paths of the sandbox by channel."""
RUN = secrets.token_hex(3)
"""Part of the keys and user names of this run. An earlier run on the same database has another one."""


@dataclass
class Part:
    """One notification of the scenario."""

    name: str
    expected: str
    """The state it has to end in; "none" for no record, "rejected" for one kept as refused."""
    sends: int
    """How many times the sandbox must have taken it."""
    answers: tuple[str, ...] = ("ok",)
    """What its endpoint answers; none for a user without a channel."""
    note: str = ""
    """What a reader of the verdict should know."""
    key: str = ""
    """The producer's key, where the service makes it."""
    copies: int = 1
    """How many messages it has. Its record is that of the last one."""
    channel: str = "feishu"
    label: str = ""
    """Label of an endpoint that belongs to nobody, which takes the place of the user."""
    user_id: int = 0
    webhook_key: str = field(default="", repr=False)

    @property
    def dedupe_key(self) -> str:
        """The producer's key."""
        return self.key or self.keys[-1]

    @property
    def keys(self) -> list[str]:
        """The producer's keys of all its messages."""
        return [f"{self.user_id}:{self.name}:{RUN}:{number}" for number in range(self.copies)]

    @property
    def record(self) -> NotificationRecord | None:
        """The record, read now; None if there is none."""
        if self.label:
            return NotificationRecord.objects.filter(request_key=self.dedupe_key, endpoint__label=self.label).first()
        records = NotificationRecord.objects.filter(user_id=self.user_id)
        return records.filter(Q(dedupe_key=self.dedupe_key) | Q(request_key=self.dedupe_key)).first()


class Scenario:
    """Plays the parts in an environment."""

    def __init__(self, environment: DemoEnvironment) -> None:
        self.environment = environment
        self.killed = Part(
            "worker killed in mid-send",
            "sent",
            2,
            ("hold", "ok"),
            note="taken before the kill, which nobody could know",
        )
        self.committed = Part("committed with its transaction", "sent", 1)
        self.rolled_back = Part("rolled back with its transaction", "none", 0)
        self.event = Part("event of another Celery app", "sent", 1)
        self.duplicate = Part("duplicate event", "sent", 1)
        self.no_channel = Part("user without a channel", "skipped", 0, ())
        self.flaky = Part("endpoint fails twice, then works", "sent", 1, ("status:503", "rate-limit:1", "ok"))
        self.reset = Part("connection reset, then fine", "sent", 1, ("reset", "ok"))
        self.slow = Part("slow endpoint", "sent", 1, ("slow:1.5",))
        self.hopeless = Part("endpoint never works", "dead", 0, ("status:500",))
        self.replayed = Part("message refused, replayed later", "sent", 1, ("code:9499",))
        self.paused = Part("bot removed, channel resumed later", "sent", 1, ("code:19001",))
        self.due_job = Part("due job, trigger, composer, Feishu", "sent", 1)
        self.scheduled = Part("scheduled for later", "sent", 1)
        self.invalid = Part("invalid payload", "rejected", 0)
        self.neighbour = Part("200 messages to a slow endpoint", "sent", 200, ("slow:1",), copies=200)
        self.beside = Part("message beside the slow endpoint", "sent", 1)
        self.limited = Part("12 messages to a bot, 5 a second", "sent", 12, copies=12, channel="feishu_bot")
        self.shipped = Part("order shipped, with a link and data", "sent", 1)
        self.alert = Part(
            "alert to the on-call group, with a mention", "sent", 1, channel="feishu_bot", label=f"on-call-{RUN}"
        )
        self.report = Part("weekly report, moved before it was sent", "sent", 1)
        self.parts = [part for part in vars(self).values() if isinstance(part, Part)]
        self.other_app = other_app(os.environ["REDIS_URL"])
        self.password = secrets.token_urlsafe(9)

    def prepare(self) -> None:
        """Make the users, their channels and an operator."""
        for number, part in enumerate(self.parts):
            user = User.objects.create_user(f"user{number}-{RUN}")
            part.user_id = user.pk
            if part.answers:
                part.webhook_key = secrets.token_hex(16)
                self.environment.sandbox.script(part.webhook_key, *part.answers)
                address = f"{self.environment.sandbox.origin}{PATHS[part.channel]}{part.webhook_key}"
                UserNotificationChannel.objects.create(
                    user=None if part.label else user, label=part.label, channel=part.channel, webhook_url=address
                )
        User.objects.create_superuser(self.operator, password=self.password)

    @property
    def operator(self) -> str:
        """Who logs in to the admin."""
        return f"operator-{RUN}"

    def play(self) -> None:
        """Play everything; returns when the last part has been asked for, not when it has ended."""
        self._kill_a_worker()
        request_notification(self._payload(self.committed))
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            request_notification(self._payload(self.rolled_back))
            raise ZeroDivisionError
        self._send_event(self.event)
        self._send_event(self.duplicate)
        self._send_event(self.duplicate)
        with transaction.atomic():
            for part in (self.no_channel, self.flaky, self.reset, self.slow, self.hopeless, self.replayed, self.paused):
                request_notification(self._payload(part))
            request_notification(self._payload(self.scheduled), deliver_at=timezone.now() + timedelta(seconds=5))
        self._schedule_a_job()
        self._request_invalid_payload()
        self._replay()
        self._resume()
        self._send_everyday_messages()
        self._fill_queues()

    def _send_everyday_messages(self) -> None:
        """Tell a customer, an on-call group and a reader what a new user would tell them."""
        customer, reader = (User.objects.get(pk=part.user_id) for part in (self.shipped, self.report))
        notify(
            customer,
            "Your order was shipped.",
            title="Order 1042",
            url="https://carrier.example/track/1042",
            action="Track",
            data={"order": 1042},
            key=self.shipped.dedupe_key,
        )
        notify(
            self.alert.label,
            "db-1: disk 91 % full",
            title="Disk full",
            url="https://dashboard.example/db-1",
            mentions=[Mention.open_id("ou_0123456789")],
            data={"feishu": {"colour": "red", "fields": {"Host": "db-1"}}},
            priority=3,
            key=self.alert.dedupe_key,
        )
        later = timezone.now() + timedelta(hours=1)
        notify(reader, "The report of last week.", key=self.report.dedupe_key, deliver_at=later)
        notify(reader, "The report of this week.", key=self.report.dedupe_key, deliver_at=timezone.now(), replace=True)

    def _kill_a_worker(self) -> None:
        request_notification(self._payload(self.killed))
        self.environment.sandbox.wait_for(1, 30, key=self.killed.webhook_key)
        self.environment.kill_sending_process()

    def _send_event(self, part: Part) -> None:
        self.other_app.send_task(
            "notification.feishu.requested", args=[self._payload(part)], queue="notifications", ignore_result=True
        )

    def _schedule_a_job(self) -> None:
        """Let a trigger happen in a moment: beat finds the job, a worker composes its notification and sends it."""
        trigger = {
            "trigger_id": f"trigger-{RUN}",
            "user_id": self.due_job.user_id,
            "trigger_type": "important_urgent_task",
            "source": "worker_due_job",
            "target_type": "task_pool",
            "target_id": self.due_job.user_id,
            "idempotency_key": RUN,
            "trace_id": f"demo-{RUN}",
        }
        schedule_job("active_schedule.triggered", trigger, timezone.now() + timedelta(seconds=1), f"demo-{RUN}")
        self.due_job.key = f"{self.due_job.user_id}:important_urgent_task:key:{RUN}"

    def _request_invalid_payload(self) -> None:
        wrong = self._payload(self.invalid) | {"target_url": "https://elsewhere.example/", "preview_id": ""}
        try:
            request_notification(wrong)
        except InvalidNotification:
            pass
        else:
            raise RuntimeError("an invalid payload was accepted")
        self.other_app.send_task("notification.feishu.requested", args=[wrong], queue="notifications")

    def _replay(self) -> None:
        """Wait for the record to die, fix the endpoint, and replay it as an operator would."""
        wait_until(lambda: self.state(self.replayed) == "dead", "the refusal is noticed")
        record = self.replayed.record
        self.environment.sandbox.script(self.replayed.webhook_key, "ok")
        options = ("--id", str(record and record.pk), "--actor", self.operator, "--reason", "the flow was fixed")
        subprocess.run(
            [sys.executable, "manage.py", "replay_notifications", *options],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _resume(self) -> None:
        """Wait for the channel to be paused, put the bot back, and resume the channel as an operator would."""
        channel = UserNotificationChannel.objects.filter(user_id=self.paused.user_id)
        wait_until(lambda: channel.filter(paused_at__isnull=False).exists(), "the channel is paused")
        self.environment.sandbox.script(self.paused.webhook_key, "ok")
        for row in channel:
            resume_channel(row.pk)

    def _fill_queues(self) -> None:
        """Ask for many messages to a slow endpoint and to a bot, and then for one message to somebody else."""
        for part in (self.neighbour, self.limited):
            payloads = [self._payload(part) | {"dedupe_key": key} for key in part.keys]
            request_notifications(payloads, channel=part.channel)
        self.environment.sandbox.wait_for(1, 30, key=self.neighbour.webhook_key)
        requested = time.time()
        request_notification(self._payload(self.beside))
        self.environment.sandbox.wait_for(1, 30, key=self.beside.webhook_key)
        self.beside.note = f"arrived after {(time.time() - requested) * 1000:.0f} ms at most"

    def _payload(self, part: Part) -> NotificationPayload:
        return {
            "event_version": "1",
            "user_id": part.user_id,
            "trigger_id": f"trigger-{RUN}",
            "preview_id": f"preview-{part.user_id}",
            "trigger_type": "important_urgent_task",
            "target_type": "task_pool",
            "target_id": part.user_id,
            "dedupe_key": part.dedupe_key,
            "target_url": f"/assistant/{part.user_id}",
            "summary_text": f"把“写周报”改到周四上午 ({part.name})",
            "fallback_text": "",
            "trace_id": f"demo-{RUN}",
            "requested_at": timezone.now().isoformat(),
        }

    def state(self, part: Part) -> str:
        """Return the state a part is in now."""
        if record := part.record:
            return record.status
        if part is self.invalid and RejectedRequest.objects.filter(payload__contains=part.dedupe_key).exists():
            return "rejected"
        return "none"

    def taken(self, part: Part) -> int:
        """Return how many times the sandbox took a part's message."""
        return len(self.environment.sandbox.deliveries(key=part.webhook_key, accepted=True)) if part.webhook_key else 0

    def arrived(self, part: Part) -> int:
        """Return how many requests for a part reached the sandbox, refused ones too."""
        return len(self.environment.sandbox.deliveries(key=part.webhook_key)) if part.webhook_key else 0

    def ended(self) -> bool:
        """Tell whether every part is in the state it should end in; a wrong one only shows by patience running out."""
        return all(self.state(part) == part.expected for part in self.parts)
