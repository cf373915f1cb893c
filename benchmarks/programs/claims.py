"""Deliver with the memory provider and without locks; print pages and milliseconds of each claim that is looked at.

A claim is the engine's own: a look at the queue, if it takes one, and the statement that claims. Both are explained
and rolled back just before they are executed. BENCH_DELIVER: records that are delivered first, without a look at the
claims. BENCH_LIMIT: size of a drain whose claims are looked at. BENCH_MESSAGES: drains of one new message each that
are looked at.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from typing import Any

import django


class Explaining:
    """An execute wrapper that adds up what PostgreSQL says of the statements of each claim."""

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.milliseconds: list[float] = []
        self._pages = 0
        self._milliseconds = 0.0
        self._drains = 0
        """Drains whose claims count as one."""

    def __call__(self, execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        """Explain a look or a claim, then execute the statement."""
        is_look = "AS newest" in sql
        is_claim = ("SKIP LOCKED" in sql and "RETURNING" in sql) or "EXECUTE notifications_" in sql
        if (is_claim or is_look) and not sql.startswith(("EXPLAIN", "PREPARE")):
            self._explain(sql, parameters)
            if is_claim:
                self.end_claim()
        return execute(sql, parameters, many, context)

    def end_claim(self) -> None:
        """Add what was looked at as a claim. A look after which nothing is claimed is one as well."""
        if self._pages:
            self.pages.append(self._pages)
            self.milliseconds.append(self._milliseconds)
        self._pages, self._milliseconds = 0, 0.0

    def end_drain(self) -> None:
        """Count the claims of this drain as one."""
        self.end_claim()
        self.pages[self._drains :] = [sum(self.pages[self._drains :])]
        self.milliseconds[self._drains :] = [sum(self.milliseconds[self._drains :])]
        self._drains += 1

    def _explain(self, sql: str, parameters: Any) -> None:
        from django.db import connection, transaction

        settings, statement = re.fullmatch(r"((?:SET LOCAL [^;]+;)*)(.*)", sql, re.DOTALL).groups()  # type: ignore[union-attr]
        with transaction.atomic(), connection.cursor() as cursor:
            if settings:
                cursor.execute(settings)
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            [(answer,)] = cursor.fetchall()
            transaction.set_rollback(True)
        found = answer[0] if isinstance(answer, list) else json.loads(answer)[0]
        self._pages += found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
        self._milliseconds += found["Execution Time"]


def main() -> None:
    """Deliver, look and print."""
    from django.contrib.auth import get_user_model
    from django.db import connection

    from benchmarks.requests_made import commit_one
    from notifications.conf import service_options
    from notifications.delivery.engine import Engine
    from notifications.providers.memory import MemoryProvider

    options = dataclasses.replace(service_options(), drain_budget=600.0)
    engine = Engine(options=options, providers={"feishu": MemoryProvider()})
    if (count := int(os.environ.get("BENCH_DELIVER", 0))) and (sent := engine.deliver_due(limit=count).sent) != count:
        raise RuntimeError(f"{sent} of {count} were sent")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM notification_records")  # as autovacuum would have done it
    explaining = Explaining()
    with connection.execute_wrapper(explaining):
        if limit := int(os.environ.get("BENCH_LIMIT", 0)):
            engine.deliver_due(limit=limit)
            explaining.end_claim()
        users = list(get_user_model().objects.values_list("pk", flat=True)[:1])  # the large databases have none
        for number in range(int(os.environ.get("BENCH_MESSAGES", 0))):
            commit_one(f"claims:{os.getpid()}:{number}", users[0])
            engine.deliver_due()
            explaining.end_drain()
    print(json.dumps({"pages": explaining.pages, "ms": explaining.milliseconds}))


if __name__ == "__main__":
    django.setup()
    main()
