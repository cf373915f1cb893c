"""One drain per process: a nudge makes the running drain claim again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

import pytest
from django.contrib.auth.models import User
from django.db import connection

from dev.waiting import wait_until
from notifications import tasks
from notifications.api import request_notification
from notifications.delivery import send_pool
from notifications.models import NotificationRecord
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.states import Outcome, Status
from tests.support.payloads import payload

PATIENCE = 10.0


class SlowForOne:
    """Sends nothing; the notification of one user waits until the test opens its gate."""

    channel: ClassVar[str] = "feishu"
    slow_user: ClassVar[int] = 0
    entered: ClassVar[threading.Event] = threading.Event()
    gate: ClassVar[threading.Event] = threading.Event()

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Succeed, for one user late."""
        if request.user_id == self.slow_user:
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        return SendResult(outcome=Outcome.SUCCESS)


@pytest.mark.django_db(transaction=True)
def test_nudge_wakes_up_the_running_drain_and_starts_no_second_one(
    change: Callable[..., None], make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(PROVIDERS={"feishu": f"{__name__}.SlowForOne"})
    monkeypatch.setattr(send_pool, "IDLE_RECHECK_SECONDS", 1000.0)  # only the wakeup makes the drain claim again
    slow, fast = make_user("slow"), make_user("fast")
    SlowForOne.slow_user = slow.pk
    request_notification(payload(user_id=slow.pk, dedupe_key="slow"))

    def drain() -> None:
        tasks.deliver_due.run()
        connection.close()

    drains = threading.Thread(target=drain)
    drains.start()
    try:
        assert SlowForOne.entered.wait(PATIENCE)
        request_notification(payload(user_id=fast.pk, dedupe_key="fast"))

        tasks.deliver_due.run()  # returns at once, while the slow message is still being sent

        of_fast = NotificationRecord.objects.filter(dedupe_key="fast", status=Status.SENT)
        wait_until(of_fast.exists, "the running drain sends the new message")
        assert NotificationRecord.objects.get(dedupe_key="slow").status == Status.SENDING
    finally:
        SlowForOne.gate.set()
        drains.join()
    assert NotificationRecord.objects.get(dedupe_key="slow").status == Status.SENT
