"""What starting entries of a Procfile promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dev import records
from dev.procfile import Handle, Processes
from tests.dev import eventually
from tests.support.paths import ROOT

pytestmark = pytest.mark.processes

PROGRAM = """
import os, signal, subprocess, sys
words = sys.argv[1:]
if "deaf" in words:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "polite" in words:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
if "parent" in words:
    subprocess.Popen([sys.executable, __file__, "deaf"])
if "leave" in words:
    sys.exit(9)
print(f"pid={os.getpid()} python={sys.executable} words={words} more={os.environ.get('MORE')}", flush=True)
print("to stderr", file=sys.stderr)
while True:
    signal.pause()
"""
PROCFILE = """
# What runs here.
plain: python program.py --port ${PORT:-8000}

polite: python program.py polite
deaf: python program.py deaf
family: python program.py parent deaf
orphaner: python program.py parent leave
assigned: MORE=$PORT python program.py
redirected: exec python program.py 2>&1
compound: echo first && python program.py
brief: echo "a; b"
"""
OWNER = """
import json, sys
from pathlib import Path
from dev.procfile import Processes
processes = Processes(Path(sys.argv[1]), Path(sys.argv[2]))
handles = [processes.start("family"), processes.start("plain")]
print(json.dumps([str(handle.log_path) for handle in handles]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def procfile(tmp_path: Path) -> Path:
    """A Procfile with the program that it starts."""
    (tmp_path / "program.py").write_text(PROGRAM)
    path = tmp_path / "Procfile"
    path.write_text(PROCFILE)
    return path


@pytest.fixture
def processes(procfile: Path, tmp_path: Path) -> Iterator[Processes]:
    """Its entries, ready to be started; what was started is ended."""
    with Processes(procfile, tmp_path / "logs", {"PORT": "4321"}) as processes:
        yield processes


def ready(handle: Handle, programs: int = 1) -> Handle:
    """Wait until a program, or several that share a log, have said that they are ready."""
    eventually(lambda: handle.log.count("pid=") == programs)
    return handle


def announced(log: Path) -> list[psutil.Process]:
    """Find the processes that have said their number in a log."""
    words = log.read_text().split()
    return [psutil.Process(int(word.removeprefix("pid="))) for word in words if word.startswith("pid=")]


def test_comments_and_blank_lines_of_a_procfile_are_no_entries(processes: Processes) -> None:
    assert [*processes.entries][:3] == ["plain", "polite", "deaf"]
    assert processes.entries["deaf"] == "python program.py deaf"


class TestStart:
    def test_the_pid_is_the_programs_own(self, processes: Processes) -> None:
        for name in ("plain", "assigned", "redirected"):
            handle = ready(processes.start(name))

            assert f"pid={handle.pid} " in handle.log, name
            assert os.getpgid(handle.pid) == handle.pid, name

    def test_variables_are_expanded(self, processes: Processes) -> None:
        assert "words=['--port', '4321']" in ready(processes.start("plain")).log

    def test_an_instance_may_have_variables_of_its_own(self, processes: Processes) -> None:
        assert "words=['--port', '1234']" in ready(processes.start("plain", {"PORT": "1234"})).log

    def test_a_command_may_begin_with_assignments(self, processes: Processes) -> None:
        assert "more=4321" in ready(processes.start("assigned")).log

    def test_all_parts_of_a_compound_command_run(self, processes: Processes) -> None:
        assert ready(processes.start("compound")).log.startswith("first\n")

    def test_a_separator_in_quotes_makes_no_compound_command(self, processes: Processes) -> None:
        handle = processes.start("brief")

        assert handle.wait(10) == 0
        assert handle.log == "a; b\n"

    def test_programs_of_our_own_environment_come_first(self, processes: Processes) -> None:
        assert f"python={Path(sys.executable).parent}/python" in ready(processes.start("plain")).log

    def test_each_instance_has_a_name_and_a_log(self, processes: Processes) -> None:
        first, second = processes.start("plain"), processes.start("plain")

        assert [first.label, second.label] == ["plain.1", "plain.2"]
        assert [first.log_path.name, second.log_path.name] == ["plain.1.log", "plain.2.log"]
        assert first.pid != second.pid

    def test_standard_error_goes_to_the_log_too(self, processes: Processes) -> None:
        handle = processes.start("plain")

        eventually(lambda: "to stderr" in handle.log)

    def test_an_unknown_entry_is_an_error(self, processes: Processes) -> None:
        with pytest.raises(KeyError, match="nothing"):
            processes.start("nothing")


class TestEnd:
    def test_terminate_lets_the_program_end_by_itself(self, processes: Processes) -> None:
        handle = ready(processes.start("polite"))

        assert handle.terminate(10) == 4
        assert not handle.alive

    def test_terminate_kills_a_program_that_does_not_listen(self, processes: Processes) -> None:
        handle = ready(processes.start("deaf"))

        assert handle.terminate(0.1) == -signal.SIGKILL

    def test_kill_takes_the_whole_group(self, processes: Processes) -> None:
        handle = ready(processes.start("family"), programs=2)
        family = announced(handle.log_path)

        assert handle.kill() == -signal.SIGKILL
        assert records.wait_gone(family, 10) == []

    def test_children_of_a_program_that_ended_by_itself_go_too(self, processes: Processes) -> None:
        handle = ready(processes.start("orphaner"))
        [child] = announced(handle.log_path)
        assert handle.wait(10) == 9
        assert child.is_running()

        assert handle.terminate(10) == 9
        assert records.wait_gone([child], 10) == []

    def test_a_program_that_runs_on_is_a_timeout(self, processes: Processes) -> None:
        handle = ready(processes.start("plain"))

        with pytest.raises(TimeoutError, match=r"plain\.1 still runs"):
            handle.wait(0.01)

    def test_stop_all_ends_everything(self, processes: Processes) -> None:
        handles = [ready(processes.start(name)) for name in ("plain", "polite")]

        processes.stop_all()

        assert not any(handle.alive for handle in handles)
        assert processes.handles == []

    def test_after_stop_all_it_can_start_again(self, processes: Processes) -> None:
        processes.start("plain")
        processes.stop_all()

        assert ready(processes.start("plain")).label == "plain.2"

    def test_ending_twice_is_harmless(self, processes: Processes) -> None:
        handle = ready(processes.start("plain"))
        processes.stop_all()

        assert handle.kill() == handle.terminate() == -signal.SIGTERM

    def test_nothing_outlives_an_owner_that_is_killed(self, procfile: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-c", OWNER, str(procfile), str(tmp_path / "logs")]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            family, plain = map(Path, json.loads(owner.stdout.readline()))
            eventually(lambda: family.read_text().count("pid=") == 2 and plain.read_text().count("pid=") == 1)
            programs = announced(family) + announced(plain)

            owner.kill()

        assert records.wait_gone(programs, 10) == []
