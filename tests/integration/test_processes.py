"""What the parent of several processes promises, shown with small programs that need no servers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dev.waiting import wait_until
from tests.support.measured import measured_env
from tests.support.paths import ROOT

pytestmark = pytest.mark.processes

PROGRAM = """
import logging, os, signal, sys, time
from notifications import processes

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(levelname)s %(message)s")
processes.FIRST_DELAY_SECONDS = 0.05

def say(text):
    os.write(1, f"{text}\\n".encode())

def handle(number, _frame):
    say(f"{os.getpid()} got {signal.Signals(number).name}")
    if number != signal.SIGTERM or not deaf:
        sys.exit(0)

deaf = "deaf" in sys.argv

def run(number):
    if "broken" in sys.argv:
        return 3
    if "raising" in sys.argv:
        raise RuntimeError("no such thing")
    for caught in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(caught, handle)
    if "orphan" in sys.argv and not os.fork():
        parent = os.getppid()
        say(f"grandchild {os.getpid()}")
        while os.getppid() == parent:
            time.sleep(0.01)
        os._exit(0)
    say(f"ready {number} {os.getpid()} {os.getppid()}")
    while True:
        signal.pause()

if "orphan" in sys.argv:
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become children, as of process 1
sys.exit(processes.run_processes(int(sys.argv[1]), run, stop_timeout=float(sys.argv[2])))
"""


class Program:
    """A running parent, what it and its children printed, and the children by number."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, stdout=output, env=os.environ | measured_env()
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ready(self) -> list[tuple[int, int]]:
        """Return number and pid of every child that began, in this order."""
        return [(int(number), int(pid)) for number, pid in re.findall(r"^ready (\d+) (\d+)", self.log, re.MULTILINE)]

    def wait_for_ready(self, count: int) -> list[tuple[int, int]]:
        wait_until(lambda: len(self.ready()) >= count, f"{count} children began")
        return self.ready()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    with contextlib.ExitStack() as stack:

        def run(*arguments: str, processes: int = 2, stop_timeout: float = 60.0) -> Program:
            program = Program(tmp_path / "log", str(processes), str(stop_timeout), *arguments)
            stack.callback(program.process.wait, 30)
            stack.callback(program.process.kill)
            return program

        yield run


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_each_number_runs_once_in_a_process_of_its_own(start: Callable[..., Program]) -> None:
    program = start(processes=3)

    ready = program.wait_for_ready(3)

    assert sorted(number for number, _pid in ready) == [1, 2, 3]
    assert {pid for _number, pid in ready} == {child.pid for child in psutil.Process(program.process.pid).children()}


def test_one_process_needs_no_parent(start: Callable[..., Program]) -> None:
    program = start(processes=1)

    assert program.wait_for_ready(1) == [(1, program.process.pid)]


@pytest.mark.parametrize(
    ("number", "reason", "level"),
    [(signal.SIGKILL, "killed by SIGKILL", "ERROR"), (signal.SIGTERM, "exit status 0", "ERROR")],
)
def test_a_child_that_ends_is_started_again_and_the_reason_is_logged(
    start: Callable[..., Program], number: signal.Signals, reason: str, level: str
) -> None:
    program = start()
    ready = dict(program.wait_for_ready(2))

    os.kill(ready[2], number)

    again = program.wait_for_ready(3)[-1]
    assert again[0] == 2
    assert again[1] != ready[2]
    assert f"{level} process 2 ended: {reason}; the next one starts in 0.05 s" in program.log
    assert not gone(ready[1])


def test_a_program_whose_processes_cannot_start_ends_with_status_1(start: Callable[..., Program]) -> None:
    program = start("broken")

    assert program.process.wait(30) == 1
    # Each failure doubles the delay.
    assert re.findall(r"process 1 ended: exit status 3; the next one starts in (\S+) s", program.log) == [
        "0.05",
        "0.1",
        "0.2",
    ]
    assert "CRITICAL no process can be started, giving up" in program.log


def test_an_exception_of_a_process_is_logged(start: Callable[..., Program]) -> None:
    program = start("raising")

    assert program.process.wait(30) == 1
    assert "ERROR process 1 failed" in program.log
    assert "RuntimeError: no such thing" in program.log


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGHUP, "SIGTERM"),
        (signal.SIGINT, "SIGTERM"),
        (signal.SIGQUIT, "SIGQUIT"),
    ],
)
def test_a_signal_to_the_parent_stops_every_child(
    start: Callable[..., Program], sent: signal.Signals, received: str
) -> None:
    program = start()
    ready = program.wait_for_ready(2)

    program.process.send_signal(sent)

    assert program.process.wait(30) == 0
    assert [f"{pid} got {received}" in program.log for _number, pid in ready] == [True, True]
    assert len(program.ready()) == 2


def test_a_second_interrupt_is_a_cold_stop(start: Callable[..., Program]) -> None:
    program = start("deaf")
    program.wait_for_ready(2)

    program.process.send_signal(signal.SIGINT)
    wait_until(lambda: program.log.count("got SIGTERM") == 2, "both children got the first")
    program.process.send_signal(signal.SIGINT)

    assert program.process.wait(30) == 0
    assert program.log.count("got SIGQUIT") == 2


def test_a_child_that_does_not_stop_in_time_is_killed(start: Callable[..., Program]) -> None:
    program = start("deaf", stop_timeout=0.2)
    ready = program.wait_for_ready(2)

    program.process.send_signal(signal.SIGTERM)

    assert program.process.wait(30) == 1
    assert all(gone(pid) for _number, pid in ready)
    assert "ERROR processes did not stop in time, killing them" in program.log
    assert "process 1: killed by SIGKILL while stopping" in program.log


def test_children_of_a_killed_parent_stop(start: Callable[..., Program]) -> None:
    program = start()
    ready = program.wait_for_ready(2)

    program.process.kill()

    wait_until(lambda: all(gone(pid) for _number, pid in ready), "the children are gone")
    assert [f"{pid} got SIGTERM" in program.log for _number, pid in ready] == [True, True]


def test_children_of_a_killed_parent_that_do_not_stop_kill_themselves(start: Callable[..., Program]) -> None:
    program = start("deaf", stop_timeout=0.2)
    ready = program.wait_for_ready(2)

    program.process.kill()

    wait_until(lambda: all(gone(pid) for _number, pid in ready), "the children are gone")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process stand in for process 1")
def test_the_parent_reaps_processes_that_its_children_left_behind(start: Callable[..., Program]) -> None:
    program = start("orphan")
    ready = program.wait_for_ready(2)
    wait_until(lambda: program.log.count("grandchild") == 2, "the children have children")
    orphan = psutil.Process(psutil.Process(ready[0][1]).children()[0].pid)

    os.kill(ready[0][1], signal.SIGKILL)

    wait_until(lambda: not orphan.is_running(), "the orphan is gone, not even a zombie")


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGUSR1])
def test_children_do_not_inherit_the_handlers_of_the_parent(
    number: signal.Signals, start: Callable[..., Program]
) -> None:
    program = start()
    ready = program.wait_for_ready(2)

    status = Path(f"/proc/{ready[0][1]}/status")
    if not status.exists():
        pytest.skip("no /proc")
    caught = int(re.findall(r"^SigCgt:\s*(\w+)", status.read_text(), re.MULTILINE)[0], 16)
    assert not caught & 1 << (number - 1)
