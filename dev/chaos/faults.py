"""The faults, and a seeded schedule of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import redis

from dev.chaos.environment import LEASE, LOCK_TTL, SoakEnvironment
from dev.chaos.load import WORDS
from dev.procfile import Handle
from dev.proxy import Mode

Undo = Callable[[], object]


@dataclass(slots=True)
class Event:
    """One fault as it happened; times as the sandbox's journal has them (Unix seconds)."""

    name: str
    began: float
    ended: float = 0.0
    pids: set[int] = field(default_factory=set)
    """Of the processes that it hit; empty where it hit a server or a connection."""


class Schedule:
    """Starts faults at random times. Several can last at the same time.

    Args:
        environment: what to break.
        seed: of the choices.
        keys: the endpoints' keys at the sandbox, by kind.
        only: names of the faults to choose from; all by default.
        pause: mean seconds between two faults.
    """

    def __init__(
        self,
        environment: SoakEnvironment,
        seed: int,
        keys: dict[str, list[str]],
        only: frozenset[str] = frozenset(),
        pause: float = 1.4,
    ) -> None:
        self.environment = environment
        self.choice = random.Random(seed)  # noqa: S311
        self.keys = keys
        self.pause = pause
        self.events: list[Event] = []
        self.kills = 0
        faults: dict[str, tuple[int, Callable[[], Iterator[float]]]] = {
            "kill": (40, self._kill),
            "term": (3, self._term),
            "short-stop": (3, self._short_stop),
            "long-stop": (2, self._long_stop),
            "redis-kill": (2, self._redis_kill),
            "redis-freeze": (2, self._redis_stop),
            "redis-clients": (3, self._redis_clients),
            "redis-memory": (2, self._redis_memory),
            "redis-readonly": (2, self._redis_readonly),
            "database-backends": (3, self._database_backends),
            "database-crash": (1, self._database_crash),
            "database-link": (2, lambda: self._link("database")),
            "redis-link": (2, lambda: self._link("redis")),
            "receiver-link": (2, lambda: self._link("receiver")),
            "receiver": (4, self._receiver),
            "clock": (2, self._clock),
        }
        self._faults = {name: fault for name, fault in faults.items() if not only or name in only}
        self._open: list[tuple[float, Event, Iterator[float]]] = []

    def run(self, seconds: float) -> None:
        """Start faults for this time, then end them all."""
        end = time.monotonic() + seconds
        due = time.monotonic()
        while time.monotonic() < end:
            self.environment.supervise()
            if time.monotonic() >= due:
                self._begin()
                due += self.choice.expovariate(1 / self.pause)
            self._close(time.monotonic())
            time.sleep(0.05)
        self._close(float("inf"))
        self.environment.heal()

    def _begin(self) -> None:
        running = Counter(event.name for _until, event, _fault in self._open)
        names = [name for name in self._faults if running[name] < (2 if name.endswith("stop") else 1)]
        if not names:
            return
        name = self.choice.choices(names, [self._faults[name][0] for name in names])[0]
        event = Event(name, time.time())
        self.events.append(event)
        self._event = event
        fault = self._faults[name][1]()
        seconds = next(fault)
        self._open.append((time.monotonic() + seconds, event, fault))

    def _close(self, now: float) -> None:
        for item in list(self._open):
            until, event, fault = item
            if until <= now:
                next(fault, None)
                event.ended = time.time()
                self._open.remove(item)

    def _pick(self, *names: str) -> tuple[str, Handle, int]:
        """Choose a process of these kinds, often one that is sending, and note it as hit.

        Returns:
            Its kind, its program, and its pid: the program's, or that of a process that a worker has forked.
        """
        still = {pid for _until, event, _fault in self._open for pid in event.pids if event is not self._event}
        running = [
            (name, handle, pid)
            for name, handle in self.environment.running_processes()
            # A web process's children have a fault of their own.
            for pid in (handle.pid, *(handle.children if name == "worker" else ()))
        ]
        everyone = [item for item in running if (not names or item[0] in names) and item[2] not in still] or running
        busy = [item for item in everyone if item[2] == self.environment.last_sender()]
        name, handle, pid = self.choice.choice(busy if busy and self.choice.random() < 0.5 else everyone)
        self._event.pids.add(pid)
        return name, handle, pid

    def _signal(self, handle: Handle, pid: int, number: signal.Signals) -> None:
        """Send a signal to one process of a worker, or to the whole group of a program."""
        with contextlib.suppress(ProcessLookupError):
            if pid != handle.pid:
                os.kill(pid, number)
            else:
                self._event.pids.update(handle.children)
                os.killpg(pid, number)

    def _kill(self) -> Iterator[float]:
        self.kills += 1
        if self.choice.random() < 0.5 and self._kill_web_child():
            yield 0
            return
        name, handle, pid = self._pick()
        if name == "worker" and self.choice.random() < 0.8:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)  # one process, which its parent starts again, or the parent alone
        else:
            self._event.pids.update(handle.children)
            handle.kill()
        yield 0

    def _kill_web_child(self) -> bool:
        for handle in self.environment.members["web"]:
            with contextlib.suppress(psutil.Error):
                if children := psutil.Process(handle.pid).children():
                    child = self.choice.choice(children)
                    self._event.pids.add(child.pid)
                    child.kill()
                    return True
        return False

    def _term(self) -> Iterator[float]:
        kind, handle, pid = self._pick()
        if pid != handle.pid:
            self._signal(handle, pid, signal.SIGTERM)
        elif handle in self.environment.members[kind]:
            self.environment.ask_to_end(kind, handle)
        yield 0

    def _short_stop(self) -> Iterator[float]:
        """Longer than the lease, shorter than the lock: no other worker may send the record."""
        return self._stop(self.choice.uniform(LEASE + 0.3, LEASE + 1.3))

    def _long_stop(self) -> Iterator[float]:
        return self._stop(self.choice.uniform(LOCK_TTL + 2, LOCK_TTL + 4))

    def _stop(self, seconds: float) -> Iterator[float]:
        _kind, handle, pid = self._pick(*(("worker", "driver") if self.choice.random() < 0.8 else ("beat", "web")))
        self._signal(handle, pid, signal.SIGSTOP)
        yield seconds
        self._signal(handle, pid, signal.SIGCONT)

    def _redis_kill(self) -> Iterator[float]:
        self.environment.valkey.kill()
        yield self.choice.uniform(0.5, 3)
        self.environment.valkey.start()

    def _redis_stop(self) -> Iterator[float]:
        pid = self.environment.valkey.pid if self.environment.valkey.running else None
        if pid:
            os.kill(pid, signal.SIGSTOP)
        yield self.choice.uniform(1, 4)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _redis_clients(self) -> Iterator[float]:
        self._redis("CLIENT", "KILL", "TYPE", "normal")
        yield 0

    def _redis_memory(self) -> Iterator[float]:
        self._redis("CONFIG", "SET", "maxmemory", "1")
        yield self.choice.uniform(1, 4)
        self._redis("CONFIG", "SET", "maxmemory", "0")

    def _redis_readonly(self) -> Iterator[float]:
        self._redis("REPLICAOF", "127.0.0.1", "1")
        yield self.choice.uniform(1, 4)
        self._redis("REPLICAOF", "NO", "ONE")

    def _redis(self, *command: str) -> None:
        with contextlib.suppress(redis.RedisError):
            with redis.Redis.from_url(self.environment.valkey.url, socket_timeout=1) as client:
                client.execute_command(*command)

    def _database_backends(self) -> Iterator[float]:
        self.environment.terminate_backends()
        yield 0

    def _database_crash(self) -> Iterator[float]:
        self.environment.postgres.crash()
        yield self.choice.uniform(0.5, 3)
        self.environment.postgres.start()

    def _link(self, leg: str) -> Iterator[float]:
        proxy = self.environment.proxies[leg]
        modes: tuple[Mode | str, ...] = ("no-replies", "silent", "refuse", "delay", "reset")
        mode = self.choice.choice(modes)
        match mode:
            case "delay":
                proxy.delay = self.choice.uniform(0.05, 0.2)
            case "reset":
                proxy.reset_all()
            case "no-replies" | "silent" | "refuse":
                proxy.mode = mode
        yield 0.0 if mode == "reset" else self.choice.uniform(1, 4)
        proxy.delay = 0.0
        if proxy.mode != "pass":
            proxy.mode = "pass"
            proxy.reset_all()  # what was swallowed never comes: such a connection is of no use

    def _receiver(self) -> Iterator[float]:
        word = self.choice.choice(
            ["status:503", "status:429", "rate-limit:1", "code:11232", "reset", "slow:1", "garbage"]
        )
        hit = [key for kind in ("ok", "slow", "flaky") for key in self.keys[kind] if self.choice.random() < 0.4]
        for key in hit:
            self.environment.sandbox.script(key, word)
        yield self.choice.uniform(1, 4)
        for kind in ("ok", "slow", "flaky"):
            for key in self.keys[kind]:
                self.environment.sandbox.script(key, *WORDS[kind])

    def _clock(self) -> Iterator[float]:
        self.environment.clock.write_text(self.choice.choice(["+3600", "-3600"]))
        yield self.choice.uniform(2, 8)
        self.environment.clock.write_text("+0")
