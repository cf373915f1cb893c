"""Operations that change large tables while requests go on, and that can run again after an interruption.

A migration that uses them has `atomic = False`. None of them stops an INSERT for longer than LOCK_WAIT_MS, whatever
the size of the table and however long other transactions last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import OperationalError
from django.db.migrations.operations import AddConstraint, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

logger = logging.getLogger("notifications.migrations")

LOCK_WAIT_MS = 300
"""How long an operation waits for a table lock. An INSERT that comes meanwhile waits behind it."""
PAUSE_SECONDS = 1.0
"""How long requests have the table for themselves before the next try."""
LOCK_NOT_AVAILABLE = "55P03"

_COLUMN_EXISTS = """
SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('notification_records') AND attname = %s AND NOT attisdropped
)
"""
_INDEX_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
_INDEX_IN_WORK = "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s))"


class WithShortLocks(SeparateDatabaseAndState):
    """Quick operations in one transaction, which is repeated until it gets its locks at once.

    The operations must neither scan nor rewrite a large table. Those on notification_records come last, so that the
    transaction waits for no other lock while it has that one.

    Args:
        operations: The operations.
        column: A column of notification_records that one of them adds. If it exists, an interrupted migration got past
            this transaction, and nothing is done. Without it the operations must do nothing when they run again.
    """

    atomic = False  # the transaction is our own, so that it can be repeated

    def __init__(self, *operations: Operation, column: str = "") -> None:
        super().__init__(database_operations=operations, state_operations=operations)
        self.column = column

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Run the operations, unless the column exists."""
        forwards = super().database_forwards
        if schema_editor.collect_sql:
            forwards(app_label, schema_editor, from_state, to_state)
        elif not (self.column and _fetch(schema_editor, _COLUMN_EXISTS, self.column)):
            _repeat_until_locked(schema_editor, lambda editor: forwards(app_label, editor, from_state, to_state))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Undo the operations, unless the column is missing."""
        backwards = super().database_backwards
        if schema_editor.collect_sql:
            backwards(app_label, schema_editor, from_state, to_state)
        elif not self.column or _fetch(schema_editor, _COLUMN_EXISTS, self.column):
            _repeat_until_locked(schema_editor, lambda editor: backwards(app_label, editor, from_state, to_state))


class BuildIndex(AddIndexConcurrently):
    """Builds an index beside the requests. A valid one stays; one that an interruption left behind is built anew."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Build the index, without a time limit."""
        if schema_editor.collect_sql:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        forwards = super().database_forwards
        table = to_state.apps.get_model(app_label, self.model_name)._meta.db_table
        _build_unless_valid(
            schema_editor, table, self.index.name, lambda: forwards(app_label, schema_editor, from_state, to_state)
        )


class BuildUniqueIndex(AddConstraint):
    """Adds a unique constraint with a condition, which is an index, beside the requests; like `BuildIndex`."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Build the index, without a time limit."""
        if schema_editor.collect_sql:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        create = str(self.constraint.create_sql(model, schema_editor))
        create = create.replace("CREATE UNIQUE INDEX", "CREATE UNIQUE INDEX CONCURRENTLY", 1)
        _build_unless_valid(
            schema_editor, model._meta.db_table, self.constraint.name, lambda: schema_editor.execute(create)
        )


class DropIndex(RemoveIndexConcurrently):
    """Drops an index beside the requests."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Drop the index, without a time limit. It may be gone already."""
        with _no_timeouts(schema_editor):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


def _build_unless_valid(schema_editor: Any, table: str, index: str, build: Callable[[], None]) -> None:
    name = schema_editor.quote_name(index)
    with _no_timeouts(schema_editor):
        # PostgreSQL goes on with the work of a client that was killed.
        while _fetch(schema_editor, _INDEX_IN_WORK, table):
            time.sleep(PAUSE_SECONDS)
        valid = _fetch(schema_editor, _INDEX_IS_VALID, name)
        if valid:
            return
        if valid is False:
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        build()


def _repeat_until_locked(schema_editor: Any, work: Callable[[Any], None]) -> None:
    connection = schema_editor.connection
    while True:
        try:
            # An editor of its own: it also executes the statements that Django defers to the end.
            with connection.schema_editor(atomic=True) as editor:
                editor.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
                work(editor)
        except OperationalError as error:
            if _sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            logger.warning("a table is in use by a long transaction; the migration tries again")
            time.sleep(PAUSE_SECONDS)
        else:
            return


@contextmanager
def _no_timeouts(schema_editor: Any) -> Iterator[None]:
    """Lift the session's time limits. Neither building nor the wait for older transactions stops an INSERT."""
    try:
        schema_editor.execute("SET statement_timeout = 0")
        schema_editor.execute("SET lock_timeout = 0")
        yield
    finally:
        schema_editor.execute("RESET statement_timeout")
        schema_editor.execute("RESET lock_timeout")


def _fetch(schema_editor: Any, statement: str, parameter: str) -> Any:
    """Return the only value of a query, or None if it has no row."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(statement, [parameter])
        row = cursor.fetchone()
    return row[0] if row else None


def _sqlstate(error: OperationalError) -> str:
    """Return PostgreSQL's code of an error, which psycopg2 calls `pgcode`."""
    cause: Any = error.__cause__
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")
