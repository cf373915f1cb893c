"""Redis locks: one round trip, a token, a time to live, and a bounded wait."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import redis
from redis.connection import Connection

from notifications.broker.redis_client import RedisAway, RedisGateway, gateway
from notifications.delivery.locks import Locks


@pytest.fixture
def locks() -> Locks:
    return Locks(gateway(), ttl=60)


def run(command: str, *arguments: object) -> object:
    return gateway().run(lambda client: client.execute_command(command, *arguments))  # type: ignore[no-untyped-call]


class TestAcquire:
    def test_one_of_two_gets_the_key(self, locks: Locks) -> None:
        assert locks.acquire(["k"]).keys == {"k"}
        assert locks.acquire(["k"]).keys == set()

    def test_many_keys_are_taken_in_one_round_trip_and_those_held_are_left(
        self, locks: Locks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        locks.acquire(["b"])
        sent: list[object] = []
        send = Connection.send_packed_command

        def note(self: Connection, command: Any, *args: Any, **kwargs: Any) -> None:
            sent.append(command)
            send(self, command, *args, **kwargs)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(Connection, "send_packed_command", note)

        held = locks.acquire(["a", "b", "c", "a"])

        assert held.keys == {"a", "c"}
        assert len(sent) == 1

    def test_a_lock_ends_by_itself(self, locks: Locks) -> None:
        locks.acquire(["k"])

        left = run("PTTL", gateway().key("lock:k"))

        assert isinstance(left, int)
        assert 59_000 < left <= 60_000


class TestRelease:
    def test_gives_back_only_what_is_still_ours(self, locks: Locks) -> None:
        mine = locks.acquire(["k"])
        run("DEL", gateway().key("lock:k"))  # it ran out, and
        theirs = locks.acquire(["k"])  # somebody else took it

        locks.release(mine)

        assert run("GET", gateway().key("lock:k")) == theirs.token.encode()

    def test_gives_back_some_and_keeps_the_rest(self, locks: Locks) -> None:
        held = locks.acquire(["a", "b"])

        locks.release(held, ["a"])

        assert locks.acquire(["a", "b"]).keys == {"a"}


class TestWait:
    def test_gets_the_key_as_soon_as_its_holder_is_done(self, locks: Locks) -> None:
        held = locks.acquire(["k"])
        timer = threading.Timer(0.2, locks.release, [held])
        timer.start()

        taken = locks.wait_for("k", timeout=20)

        timer.join()
        assert taken is not None
        assert taken.keys == {"k"}

    def test_gives_up_when_the_patience_is_over(self, locks: Locks) -> None:
        locks.acquire(["k"])

        assert locks.wait_for("k", timeout=0.1) is None


class TestRedisAway:
    def test_every_key_is_granted(self, away: RedisGateway) -> None:
        held = Locks(away, ttl=60).acquire(["a", "b"])

        assert held.keys == {"a", "b"}
        Locks(away, ttl=60).release(held)

    def test_it_is_said_once(self, away: RedisGateway, caplog: pytest.LogCaptureFixture) -> None:
        away.silence = 0  # each call asks again

        with caplog.at_level(logging.INFO, "notifications.redis"):
            for _ in range(5):
                Locks(away, ttl=60).acquire(["k"])

        assert len(caplog.records) == 1

    def test_its_return_is_noticed(self, caplog: pytest.LogCaptureFixture) -> None:
        flaky = gateway()
        flaky.silence = 0

        def fail(client: redis.Redis) -> None:
            raise redis.TimeoutError

        with caplog.at_level(logging.INFO, "notifications.redis"):
            with pytest.raises(RedisAway):
                flaky.run(fail)
            flaky.run(lambda client: client.ping())

        assert [record.event for record in caplog.records] == ["redis.away", "redis.back"]  # type: ignore[attr-defined]

    def test_after_a_failure_redis_is_not_asked_for_a_while(self) -> None:
        quiet = RedisGateway("redis://127.0.0.1:1/0", timeout=0.2, silence=60)
        asked: list[int] = []
        with pytest.raises(RedisAway):
            quiet.run(lambda client: client.ping())

        with pytest.raises(RedisAway):
            quiet.run(lambda client: asked.append(1))

        assert asked == []

    def test_no_address_means_no_redis(self) -> None:
        with pytest.raises(RedisAway):
            RedisGateway("", timeout=1, silence=1).run(lambda client: client.ping())
