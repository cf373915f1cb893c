"""Statements are loaded from files."""

from __future__ import annotations

import pytest

from notifications.sql import CURRENT_TIME, load_sql


def test_statement_has_no_comments_and_the_clock_in_place_of_its_placeholder() -> None:
    statement = load_sql("notifications.delivery", "release_claims")

    assert statement.startswith("UPDATE notification_records")
    assert "--" not in statement
    assert CURRENT_TIME in statement
    assert "%(current_time)s" not in statement


def test_fragment_replaces_its_placeholder() -> None:
    statement = load_sql("notifications.delivery", "settle", count_measurements="SELECT 1")

    assert "counted AS (SELECT 1)" in statement


def test_unknown_statement_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        load_sql("notifications.delivery", "no_such_statement")
