"""Every Redis key of the app has the prefix REDIS_PREFIX, so that two projects can share one Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from django.contrib.auth.models import User

from notifications.broker.nudge import nudge
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from tests.support.payloads import payload

PREFIX = "another-team:"
keys_during_send: set[str] = set()


class KeyRecorder(MemoryProvider):
    """Records which keys exist while a message is sent."""

    client: redis.Redis

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Record the keys and succeed."""
        keys_during_send.update(key.decode() for key in self.client.scan_iter())
        return super().send(request, endpoint)


@pytest.fixture(autouse=True)
def _prefix(change: Callable[..., None], redis_client: redis.Redis) -> Iterator[None]:
    KeyRecorder.client = redis_client
    keys_during_send.clear()
    change(REDIS_PREFIX=PREFIX, PROVIDERS={"feishu": f"{__name__}.KeyRecorder"}, RATE_LIMITS={"feishu": "5/minute"})
    yield
    redis_client.delete(*redis_client.scan_iter(f"{PREFIX}*"))


@pytest.mark.django_db(transaction=True)
def test_locks_nudges_and_rate_limits_have_the_prefix(make_user: Callable[..., User]) -> None:
    user = make_user("alice", webhook_url="https://www.feishu.cn/flow/api/trigger-webhook/alicekey")
    nudge()

    result = NotificationService().handle_feishu_requested(payload(user_id=user.pk, dedupe_key="k"))

    assert result.status == "sent"
    own = {key for key in keys_during_send if key.startswith(PREFIX)}
    assert own >= {f"{PREFIX}nudge", f"{PREFIX}lock:feishu|k"}
    assert any(key.startswith(f"{PREFIX}rate") for key in own), own
    assert [key for key in keys_during_send if key.startswith("smartmate:")] == []
