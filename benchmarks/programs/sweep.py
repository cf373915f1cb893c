"""Settle everything that is due without sending anything; prints rows and seconds.

BENCH_HOW: engine (deliver_due, memory provider, no locks) or bare (two UPDATEs per batch, nothing else).
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import uuid

import django

_CLAIM = """
UPDATE notification_records
SET status = 'sending', lease_token = %s, attempt_count = attempt_count + 1, max_attempts = 5,
    next_attempt_at = statement_timestamp() + interval '60 seconds', updated_at = statement_timestamp()
WHERE id = ANY(%s)
RETURNING id
"""
_SETTLE = """
UPDATE notification_records
SET status = 'sent', lease_token = NULL, next_attempt_at = NULL, last_error_code = '', last_error = '',
    provider_message_id = '', provider_request = '{"n": 1}', provider_response = '{"n": 1}',
    sent_at = statement_timestamp(), updated_at = statement_timestamp()
WHERE id = ANY(%s)
RETURNING id
"""


def engine() -> int:
    """Let the engine do it."""
    from notifications.conf import service_options
    from notifications.delivery.engine import Engine
    from notifications.providers.memory import MemoryProvider

    options = dataclasses.replace(service_options(), drain_budget=600.0)
    return Engine(options=options, providers={"feishu": MemoryProvider()}).deliver_due().sent


def bare() -> int:
    """Claim and settle with two plain statements, in batches as large as the engine's first claim."""
    from django.db import connection

    from notifications.conf import service_options

    batch, done = service_options().send_slots, 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM notification_records WHERE next_attempt_at <= now() ORDER BY next_attempt_at, id"
        )
        ids = [row[0] for row in cursor.fetchall()]
        for start in range(0, len(ids), batch):
            cursor.execute(_CLAIM, (str(uuid.uuid4()), ids[start : start + batch]))
            claimed_ids = [row[0] for row in cursor.fetchall()]
            cursor.execute(_SETTLE, (claimed_ids,))
            done += len(cursor.fetchall())
    return done


if __name__ == "__main__":
    django.setup()
    from django.db import connection

    connection.ensure_connection()
    began = time.monotonic()
    rows = {"engine": engine, "bare": bare}[os.environ["BENCH_HOW"]]()
    print(json.dumps({"rows": rows, "seconds": time.monotonic() - began}))
