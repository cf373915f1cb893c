"""What every contender sends: the engine's own headers and a body with a Feishu message's fields."""

from __future__ import annotations

import json
from collections.abc import Callable

import requests
import urllib3
from requests.adapters import HTTPAdapter

ANSWER = b'{"code":0,"msg":"success"}'
SUMMARY = "写周报改到周四上午"
HEADERS = {"User-Agent": "SmartMate-Notifications", "Accept-Encoding": "identity"}
POST_HEADERS = {"Content-Type": "application/json; charset=utf-8"}


def session(connections: int = 10) -> requests.Session:
    """Return a session as the engine's: no proxies of the environment, no retries."""
    made = requests.Session()
    made.trust_env = False
    made.headers = dict(HEADERS)
    made.mount("http://", HTTPAdapter(pool_connections=connections, pool_maxsize=connections))
    return made


def post(using: requests.Session, url: str, body: bytes) -> None:
    """Post one body and read the answer. Raises if it was no success."""
    answer = using.post(url, data=body, headers=POST_HEADERS, timeout=(3, 5))
    answer.raise_for_status()
    assert answer.content == ANSWER  # noqa: S101  a contender that fails must not be measured


def urllib3_post() -> Callable[[str, bytes], None]:
    """Return a function that posts with urllib3 alone."""
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=3, read=5))
    headers = HEADERS | POST_HEADERS

    def post_with_pool(url: str, body: bytes) -> None:
        answer = pool.request("POST", url, body=body, headers=headers)
        assert (answer.status, answer.data) == (200, ANSWER)  # noqa: S101

    return post_with_pool


def body(number: int, preview_id: str = "preview") -> bytes:
    """Return the body of one message, as long as the engine's.

    preview_id: by which the receiver tells one message from another.
    """
    fields = {
        "event": "smartmate.schedule_adjustment_ready",
        "version": "1",
        "notification_id": number,
        "user_id": 1,
        "preview_id": preview_id,
        "trigger_id": "",
        "trigger_type": "",
        "target_type": "",
        "target_id": 0,
        "message": {
            "title": "SmartMate 日程调整建议",
            "summary": f"{SUMMARY}\n/assistant/1",
            "action_text": "查看并确认调整",
            "action_url": "/assistant/1",
        },
        "sent_at": "2026-05-01T08:00:00Z",
    }
    return json.dumps(fields, ensure_ascii=False).encode()
