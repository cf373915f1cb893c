"""Order: of the records with the same channel and order key at most one is in flight, and they are sent by their id.

A claim takes only the first record of a key, and none while another one is in flight; a unique index refuses a second
one. Due records that are not the first are held. When a record leaves the flight, the first one of its key becomes due.
docs/design.md says why no record waits for ever, and why none overtakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from notifications.clock import Clock
from notifications.conf import service_options
from notifications.conf.options import BLOCK
from notifications.sql import load_sql

OrderKey = tuple[str, str]
"""Channel and order key."""

RECHECK_SECONDS = 3600.0
"""Seconds until a record that waits for its key is looked at again. The one before it usually releases it earlier."""

BLOCKED = """(
    notification_records.order_key <> '' AND notification_records.status <> 'sending'
    AND (
        notification_records.id IS DISTINCT FROM (
            SELECT head.id
            FROM notification_records AS head
            WHERE
                head.channel = notification_records.channel AND head.order_key = notification_records.order_key
                AND head.order_key <> '' AND head.next_attempt_at IS NOT NULL
            ORDER BY head.channel, head.order_key, (head.round = 0), head.id
            LIMIT 1
        )
        OR EXISTS (
            SELECT FROM notification_records AS flying
            WHERE
                flying.channel = notification_records.channel AND flying.order_key = notification_records.order_key
                AND flying.order_key <> '' AND flying.status = 'sending' AND flying.id <> notification_records.id
        )
        OR (
            %(dead_blocks)s AND notification_records.round = 0
            AND EXISTS (
                SELECT FROM notification_records AS dead
                WHERE
                    dead.channel = notification_records.channel AND dead.order_key = notification_records.order_key
                    AND dead.order_key <> '' AND dead.status = 'dead' AND dead.id < notification_records.id
            )
        )
    )
)"""
"""The condition that a row of notification_records has to wait for another one of its key.

Replayed records come first (`round = 0` is false for them), then the lowest id. A lookup reads one entry of an index,
however many records of the key wait. The first lookup has an order instead of `<`, so that it does not read on if the
record is the first one itself. Both ids are compared so that PostgreSQL cannot read all records in flight at once.
"""

_LOCK_KEYS = load_sql("notifications.ordering", "lock_order_keys")
_FIND_HELD_HEADS = load_sql("notifications.ordering", "find_held_heads")
_LET_NEXT_GO = load_sql("notifications.ordering", "let_next_go", blocked=BLOCKED)
_HOLD_BLOCKED = load_sql("notifications.ordering", "hold_blocked", blocked=BLOCKED)


def dead_blocks() -> bool:
    """Return whether a dead record blocks its key.

    It is the project's setting, and not an engine's option: the functions that let records go and those that claim
    them must agree.
    """
    return service_options().order_after_dead == BLOCK


def order_keys(rows: Iterable[Any]) -> list[OrderKey]:
    """Return the order keys of rows that have one, each once.

    Args:
        rows: Objects with `channel` and `order_key`.
    """
    return list({(row.channel, row.order_key) for row in rows if row.order_key})


@contextmanager
def letting_next_go(keys: Sequence[OrderKey], clock: Clock | None) -> Iterator[None]:
    """Run statements that change records of these keys, and then let the first record of each key go.

    All of it is one transaction under the locks of the keys, which are taken first. So the changes of a key by claims
    that hold its records, settlements and releases happen one after the other, each of them sees those before, and
    no lock is waited for in another order. Without keys nothing is added to the statements.

    Args:
        keys: The order keys.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    if not keys:
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK_KEYS, _columns(keys))
        yield
        cursor.execute(_FIND_HELD_HEADS, _columns(keys))
        # Most keys have no other record. Planning the statement that lets records go takes longer than finding that.
        if held := cursor.fetchall():
            parameters: dict[str, Any] = {"now": clock() if clock else None, "dead_blocks": dead_blocks()}
            cursor.execute(_LET_NEXT_GO, _columns(held) | parameters)


def _columns(keys: Sequence[OrderKey]) -> dict[str, Any]:
    return {"channels": [channel for channel, _ in keys], "keys": [key for _, key in keys]}


def let_next_go(keys: Sequence[OrderKey], clock: Clock | None) -> None:
    """Let the first record of each key go, unless one of the key is in flight.

    Call it after a transaction that has made a waiting or a dead record final, when that has been committed.

    Args:
        keys: The order keys.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    with letting_next_go(keys, clock):
        pass


def hold_blocked(record_ids: Sequence[int], keys: Sequence[OrderKey], clock: Clock | None) -> None:
    """Hold due records that have to wait for another one of their key, so that no claim reads them again meanwhile.

    The claim that found them may have seen an older state than this function does. It leaves a record alone that may
    go now.

    Args:
        record_ids: Ids of the records.
        keys: Their order keys.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    parameters = {
        "now": clock() if clock else None,
        "ids": list(record_ids),
        "delay": RECHECK_SECONDS,
        "dead_blocks": dead_blocks(),
    }
    with letting_next_go(keys, clock), connection.cursor() as cursor:
        cursor.execute(_HOLD_BLOCKED, parameters)
