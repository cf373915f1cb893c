"""Loads SQL statements from files, and holds the SQL that several statements share."""

from __future__ import annotations

from functools import cache
from importlib import resources

from notifications.user_keys import user_key_type

CURRENT_TIME = "COALESCE(%(now)s, statement_timestamp())"
"""The time of a statement: PostgreSQL's clock, unless a test passes the parameter `now`."""

PRIORITY_STEP_SECONDS = 600
"""A record takes its turn as if it had become due so much earlier for each step of its priority, so no priority waits
for ever. One of priority 0 that is due for so long counts as one of priority 1: it waits at most this much longer."""

TURN = (
    f"EXTRACT(EPOCH FROM next_attempt_at)::float8 - {PRIORITY_STEP_SECONDS} * GREATEST(priority, CASE WHEN "
    f"next_attempt_at <= {CURRENT_TIME} - interval '{PRIORITY_STEP_SECONDS} seconds' THEN 1 ELSE 0 END)"
)
"""The order of due records of all priorities; within a priority it is the order of `next_attempt_at`. It is a number:
PostgreSQL has dates that Python cannot hold, and one of them must not stop the delivery."""

FORBID_SORT = "SET LOCAL enable_sort = off;"
"""Goes before a statement that reads the due index. A queue's statistics are always out of date. Without this setting
PostgreSQL may choose to read and sort the whole backlog for each claim, although the index has the order already."""


@cache
def load_sql(package: str, name: str, **fragments: str) -> str:
    """Return one statement of a package, ready for `cursor.execute()`.

    Comment lines are removed, because the statement is sent to the server each time.

    Args:
        package: Import path of the package that has a folder `sql`, such as "notifications.delivery".
        name: File name without ".sql".
        fragments: SQL text by placeholder name. Each replaces `%(placeholder)s` in the file. `%(current_time)s` stands
            for CURRENT_TIME and `%(turn)s` for TURN in every file, and `%(user_key)s` for the SQL type of a user's key:
            a file that has it is loaded when all models are.

    Returns:
        The statement. Its remaining placeholders are parameters of the database driver.

    Raises:
        FileNotFoundError: The package has no such file.
    """
    text = resources.files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    statement = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--")).strip()
    if "%(user_key)s" in statement:
        fragments = {"user_key": user_key_type()} | fragments
    for placeholder, fragment in ({"current_time": CURRENT_TIME, "turn": TURN} | fragments).items():
        statement = statement.replace(f"%({placeholder})s", fragment)
    return statement
