"""SQL statements, and what they share."""

from __future__ import annotations

IN_INDEX_ORDER = "SET LOCAL enable_sort = off;"
"""A queue's statistics are always out of date, and by them PostgreSQL may prefer to read and sort the whole backlog for
each claim. The due index has the order already."""
