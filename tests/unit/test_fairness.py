"""More is due than can be sent at once: no recipient takes all slots, and a new message waits for no queue."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.claim import Claimed
from notifications.delivery.fairness import Candidate, Shares, share_keys

SLOTS = 64
A, B = 1, 2


def queue(*recipients: int, look: int = 256, newest: int = SLOTS, priority: int = 0) -> list[Candidate]:
    """Both ends of a queue whose records are of these recipients, the longest due first."""
    rows = [
        Candidate(n, "feishu", priority, share_keys(who, "feishu", None), float(n), float(n) - 600 * priority, False)
        for n, who in enumerate(recipients)
    ]
    return [*rows[:look], *(row._replace(newest=True) for row in rows[len(rows) - min(newest, len(rows)) :])]


def shares_of(slots: int, **changes: Any) -> Shares:
    return Shares(ServiceOptions(send_slots=slots, **changes))


def rows_of(recipient: int, count: int) -> list[Claimed]:
    return [
        cast("Claimed", SimpleNamespace(user_id=recipient, channel="feishu", endpoint_id=None)) for _ in range(count)
    ]


def chosen_recipients(shares: Shares, candidates: list[Candidate], free: int) -> Counter[int]:
    return Counter(int(item.shares[1].split()[1]) for item in shares.choose(candidates, free))


def test_a_recipient_gets_a_quarter_while_others_wait() -> None:
    shares = shares_of(SLOTS)
    others = range(100, 200)

    chosen = chosen_recipients(shares, queue(*[A] * 200, *others), SLOTS)

    assert chosen[A] == 16
    assert chosen.total() == SLOTS


def test_share_and_reserve_are_settings() -> None:
    shares = shares_of(SLOTS, recipient_share=0.5, slot_reserve=0.25)

    assert chosen_recipients(shares, queue(*[A] * 200, *range(100, 200)), SLOTS)[A] == 32
    assert chosen_recipients(shares, queue(*[A] * 3000), SLOTS)[A] == 48


def test_a_recipient_alone_gets_all_but_the_reserve() -> None:
    shares = shares_of(SLOTS)

    assert chosen_recipients(shares, queue(*[A] * 3000), SLOTS)[A] == 56
    shares.take(rows_of(A, 56))
    assert shares.choose(queue(*[A] * 3000), 8) == []
    assert chosen_recipients(shares, queue(*[A] * 3000, B), 8) == {B: 1}


def test_slots_that_nobody_else_needs_are_used() -> None:
    chosen = chosen_recipients(shares_of(SLOTS), queue(*[A] * 200, B, B), SLOTS)

    assert (chosen[A], chosen[B]) == (54, 2)


def test_a_new_message_waits_for_no_queue() -> None:
    shares = shares_of(SLOTS)
    candidates = queue(*[A] * 20_000, *[B] * 20_000, 7)

    assert chosen_recipients(shares, candidates, 4)[7] == 1


def test_of_slots_that_become_free_one_by_one_the_newest_get_a_quarter() -> None:
    shares = shares_of(SLOTS)
    candidates = queue(*range(1000))

    chosen = [item.record_id for _turn in range(8) for item in shares.choose(candidates, 1)]

    assert chosen == [0, 0, 0, 999, 0, 0, 0, 999]


def test_an_endpoint_that_several_recipients_use_gets_one_share() -> None:
    shared = [item._replace(shares=("endpoint of a group", item.shares[1])) for item in queue(*range(100), newest=0)]
    others = [item._replace(record_id=item.record_id + 1000) for item in queue(*range(200, 300), newest=0)]

    chosen = shares_of(SLOTS).choose([*shared, *others], SLOTS)

    assert Counter(item.shares[0] == "endpoint of a group" for item in chosen)[True] == 16


def test_slots_that_are_given_back_count_as_free() -> None:
    shares = shares_of(SLOTS)
    shares.take(rows_of(A, 16))
    assert chosen_recipients(shares, queue(*[A] * 20, *range(10, 100)), 48)[A] == 0

    shares.give_back(rows_of(A, 10))

    assert chosen_recipients(shares, queue(*[A] * 20, *range(10, 100)), 48)[A] == 10


def test_the_next_look_begins_behind_what_was_claimed_but_not_behind_what_waits() -> None:
    shares = shares_of(SLOTS)

    shares.choose(queue(*range(100), look=32, newest=0), 32)
    assert shares.left == {0: 31.0}

    shares.choose(queue(*[A] * 40, *range(100), look=60, newest=0), 32)
    assert shares.left == {0: 16.0}, "the longest due record of a recipient that has its share"


@given(
    slots=st.integers(1, 70),
    waiting=st.lists(st.integers(1, 5), max_size=80),
    used=st.dictionaries(st.integers(1, 5), st.integers(1, 20), max_size=5),
)
def test_no_choice_exceeds_the_slots_or_stops_the_queue(slots: int, waiting: list[int], used: dict[int, int]) -> None:
    shares = shares_of(slots)
    in_flight = min(sum(used.values()), slots - 1)
    rows: list[Any] = [row for who, count in used.items() for row in rows_of(who, count)]
    shares.take(rows[:in_flight])
    candidates = queue(*waiting)

    chosen = [item.record_id for item in shares.choose(candidates, slots - in_flight)]

    assert len(chosen) == len(set(chosen)) <= slots - in_flight
    assert set(chosen) <= {item.record_id for item in candidates}
    assert chosen or not waiting or in_flight, "an idle drain takes something"
