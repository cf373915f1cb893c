"""Settle everything that is due without sending anything; prints rows and seconds.

Prints the microseconds of the question whether somebody listens for signals, too.

BENCH_LISTEN=1: with a receiver of the signal `delivered`, so that events are stored. They are not relayed.
BENCH_HOW: engine (deliver_due, memory provider, no locks) or bare (two UPDATEs per batch, nothing else).
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import timeit
import uuid

import django

DECISIONS = 100_000
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


def listen(**_arguments: object) -> None:
    """Listen for a signal."""


def microseconds_of_decision() -> float:
    """Return how long it takes to ask whether somebody listens for a signal."""
    from notifications.lifecycle.events import heard_signals

    return min(timeit.repeat(heard_signals, number=DECISIONS, repeat=5)) / DECISIONS * 1e6


if __name__ == "__main__":
    django.setup()
    from django.db import connection

    if os.environ.get("BENCH_LISTEN"):
        from notifications.signals import delivered

        delivered.connect(listen)
    connection.ensure_connection()
    began = time.monotonic()
    rows = {"engine": engine, "bare": bare}[os.environ["BENCH_HOW"]]()
    seconds = time.monotonic() - began
    print(json.dumps({"rows": rows, "seconds": seconds, "microseconds": microseconds_of_decision()}))
