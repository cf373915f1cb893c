"""Redis locks: one round trip, a token, a time to live, and a wait with a timeout."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import redis
from redis.connection import Connection

from notifications.broker.redis_client import RedisGateway, RedisUnavailable, gateway
from notifications.delivery.locks import Locks


@pytest.fixture
def locks() -> Locks:
    return Locks(gateway(), ttl=60)


def run(command: str, *arguments: object) -> object:
    return gateway().run(lambda client: client.execute_command(command, *arguments))  # type: ignore[no-untyped-call]


def sent_commands(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the list that each command to Redis is appended to from now on."""
    sent: list[object] = []
    send = Connection.send_packed_command

    def record_command(self: Connection, command: Any, *args: Any, **kwargs: Any) -> None:
        sent.append(command)
        send(self, command, *args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Connection, "send_packed_command", record_command)
    return sent


def raise_timeout(*args: object, **kwargs: object) -> None:
    raise redis.TimeoutError


def hold(locks: Locks, token: str, *, seconds: float) -> None:
    """Lock a claim, and wait for the answer."""
    locks.hold_claim(token, seconds=seconds)
    locks.receive_answers()


class TestClaim:
    def test_claim_is_held_under_its_own_token_until_its_lock_ends(self, locks: Locks) -> None:
        hold(locks, "ours", seconds=60)

        assert locks.is_claim_held("ours")
        assert not locks.is_claim_held("other")

        run("PEXPIRE", gateway().key("claim:ours"), 0)
        assert not locks.is_claim_held("ours")

    def test_claim_that_did_not_wait_for_the_answer_is_held_and_its_connection_is_used_again(
        self, locks: Locks
    ) -> None:
        for token in ("first", "second"):
            hold(locks, token, seconds=60)

        assert locks.is_claim_held("first")
        assert locks.is_claim_held("second")
        assert gateway().run(lambda client: len(client.connection_pool._available_connections)) == 1

    def test_lost_answer_of_a_claim_counts_as_redis_away(self, locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
        locks.acquire("connected")
        locks.hold_claim("ours", seconds=60)
        monkeypatch.setattr(Connection, "read_response", raise_timeout)

        locks.receive_answers()

        with pytest.raises(RedisUnavailable):
            run("PING")

    def test_lock_of_a_claim_costs_one_round_trip_and_has_a_time_to_live(
        self, locks: Locks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        locks.acquire("connected")
        sent = sent_commands(monkeypatch)

        hold(locks, "ours", seconds=60)

        assert len(sent) == 1
        ttl = run("PTTL", gateway().key("claim:ours"))
        assert isinstance(ttl, int)
        assert 59_000 < ttl <= 60_000

    def test_lock_of_a_claim_whose_lease_is_long_over_ends_at_once(self, locks: Locks) -> None:
        hold(locks, "late", seconds=-5)

        ttl = run("PTTL", gateway().key("claim:late"))
        assert isinstance(ttl, int)
        assert ttl <= 1


class TestAcquire:
    def test_second_acquire_of_a_key_gets_nothing(self, locks: Locks) -> None:
        assert locks.acquire("k")
        assert locks.acquire("k") is None

    def test_lock_has_a_time_to_live(self, locks: Locks) -> None:
        locks.acquire("k")

        ttl = run("PTTL", gateway().key("lock:k"))

        assert isinstance(ttl, int)
        assert 59_000 < ttl <= 60_000


class TestRelease:
    def test_released_key_can_be_taken_again(self, locks: Locks) -> None:
        ours = locks.acquire("k")
        assert ours

        locks.release(ours)

        assert locks.acquire("k")

    def test_release_keeps_a_lock_that_another_process_took(self, locks: Locks) -> None:
        ours = locks.acquire("k")
        run("DEL", gateway().key("lock:k"))  # its time to live ended
        other = locks.acquire("k")  # another process took it
        assert ours
        assert other

        locks.release(ours)

        assert run("GET", gateway().key("lock:k")) == other.token.encode()


class TestWait:
    def test_wait_ends_when_the_holder_releases_the_key(self, locks: Locks) -> None:
        held = locks.acquire("k")
        timer = threading.Timer(0.2, locks.release, [held])
        timer.start()

        taken = locks.wait_for("k", timeout=20)

        timer.join()
        assert taken is not None
        assert taken.key == "k"

    def test_wait_ends_after_its_timeout(self, locks: Locks) -> None:
        locks.acquire("k")

        assert locks.wait_for("k", timeout=0.1) is None


class TestRedisAway:
    def test_every_key_is_granted_without_redis(self, away: RedisGateway) -> None:
        held = Locks(away, ttl=60).acquire("a")

        assert held
        Locks(away, ttl=60).release(held)

    def test_no_claim_is_held_without_redis(self, away: RedisGateway) -> None:
        hold(Locks(away, ttl=60), "ours", seconds=60)

        assert not Locks(away, ttl=60).is_claim_held("ours")

    def test_lost_connection_is_logged_once(self, away: RedisGateway, caplog: pytest.LogCaptureFixture) -> None:
        away.silence = 0  # no call is skipped

        with caplog.at_level(logging.INFO, "notifications.redis"):
            for _ in range(5):
                Locks(away, ttl=60).acquire("k")

        assert len(caplog.records) == 1

    def test_return_of_redis_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        flaky = gateway()
        flaky.silence = 0

        def fail(client: redis.Redis) -> None:
            raise redis.TimeoutError

        with caplog.at_level(logging.INFO, "notifications.redis"):
            with pytest.raises(RedisUnavailable):
                flaky.run(fail)
            flaky.run(lambda client: client.ping())

        assert [record.event for record in caplog.records] == ["redis.away", "redis.back"]  # type: ignore[attr-defined]

    def test_calls_are_skipped_for_a_while_after_a_failure(self) -> None:
        quiet = RedisGateway("redis://127.0.0.1:1/0", timeout=0.2, silence=60)
        calls: list[int] = []
        with pytest.raises(RedisUnavailable):
            quiet.run(lambda client: client.ping())

        with pytest.raises(RedisUnavailable):
            quiet.run(lambda client: calls.append(1))

        assert calls == []

    def test_empty_url_means_no_redis(self) -> None:
        with pytest.raises(RedisUnavailable):
            RedisGateway("", timeout=1, silence=1).run(lambda client: client.ping())
