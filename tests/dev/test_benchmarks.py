"""The benchmark's arithmetic, and that its receivers count exactly."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import peers, wire
from benchmarks.figures import KEYS, LATER, NAMES, Results, percentile
from benchmarks.measures import ALL, growth
from benchmarks.receiver import PATH, Nginx, nginx
from benchmarks.serving import Protocol
from benchmarks.watching import processor_time
from dev.keeper import private_directory
from notifications.providers.base import SendRequest
from notifications.providers.feishu.flow import FeishuFlowProvider


def test_the_json_file_has_median_and_range_of_every_key() -> None:
    results = Results()
    for key in (*KEYS, LATER):
        for value in (3.0, 1.0, 2.5):
            results.add(key.name, value, below=value * 100)

    written = json.loads(results.as_json({"rounds": 3}))

    assert written.keys() == {*NAMES, "details"}
    assert all(written[name] == {"median": 2.5, "min": 1.0, "max": 3.0} for name in NAMES)
    assert written["details"]["engine_vs_floor"]["below"]["median"] == 250
    assert written["details"][LATER.name]["max"] == 3.0
    assert written["details"]["about"] == {"rounds": 3}


def test_the_table_says_whether_each_median_reached_its_target() -> None:
    results = Results()
    for value in (2.9, 2.5, 2.85):
        results.add("engine_vs_floor", value, **{"engine/s": 1234.0})
    results.add("isolation_p95", 1.6)

    head, floor, isolation = results.table().splitlines()

    assert head.startswith("key")
    assert all(part in floor for part in ("engine_vs_floor", "2.85", "2.5", "2.9", ">= 2.2", "yes", "engine/s 1,234"))
    assert all(part in isolation for part in ("isolation_p95", "<= 1.5", "NO"))


def test_a_contender_that_is_absent_is_named_with_the_reason_and_counts_as_not_shown() -> None:
    results = Results(absent={"engine_vs_oban": "no Python 3.12 or later here"})
    results.add("engine_vs_floor", 2.5)

    lines = results.table().splitlines()

    [oban] = [line for line in lines if line.startswith("engine_vs_oban")]
    assert all(part in oban for part in (">= 2", "not shown", "no Python 3.12 or later here"))
    assert json.loads(results.as_json({}))["details"]["not shown"] == {"engine_vs_oban": "no Python 3.12 or later here"}


def test_a_job_queue_that_cannot_be_installed_says_which_step_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _name: None)

    with pytest.raises(peers.PeerAbsentError, match="no npm here"):
        peers.node_command("graphile_jobs.cjs")


def test_every_key_is_measured_by_one_module() -> None:
    measured = [key for module in ALL for key in module.KEYS]

    assert sorted(measured) == sorted(NAMES)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert {percent: percentile(values, percent) for percent in (50, 95, 99, 100)} == {50: 50, 95: 95, 99: 99, 100: 100}


def test_contenders_post_the_same_fields_and_length_as_the_engine() -> None:
    text = f"{wire.SUMMARY}\n/assistant/1"
    request = SendRequest(
        notification_id=1, user_id=1, preview_id="preview", target_id=0, target_url="/assistant/1", message_text=text,
        fallback_used=False, attempt_count=1, trigger_id="", trigger_type="", target_type="",
    )  # fmt: skip
    ours = FeishuFlowProvider().payload(request)

    theirs = json.loads(wire.body(1))

    assert list(theirs) == list(ours)
    assert theirs["message"].keys() == ours["message"].keys()
    assert abs(len(wire.body(1)) - len(json.dumps(ours, ensure_ascii=False).encode())) <= len("https://app.example.com")


async def _post(port: int, bodies: list[bytes]) -> list[bytes]:
    """Post bodies on one connection, each in two pieces; return the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for body in bodies:
        head = f"POST {PATH}quickquick HTTP/1.1\r\nHost: r\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for piece in (head + body[:5], body[5:]):
            writer.write(piece)
            await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        answers.append(answer + await reader.readexactly(len(wire.ANSWER)))
    writer.close()
    await writer.wait_closed()
    return answers


def test_the_asyncio_receiver_counts_each_delivery_once() -> None:
    async def run() -> list[bytes]:
        server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            lines = [_post(port, [wire.body(n, f"{line}:{n}") for n in range(20)]) for line in range(5)]
            return [answer for answers in await asyncio.gather(*lines) for answer in answers]

    Protocol.hits = 0
    Protocol.arrivals.clear()

    answers = asyncio.run(run())

    assert Protocol.hits == 100
    assert {json.loads(raw)["preview_id"] for _at, raw in Protocol.arrivals} == {
        f"{line}:{n}" for line in range(5) for n in range(20)
    }
    assert all(answer.endswith(wire.ANSWER) for answer in answers)


@pytest.mark.processes
@pytest.mark.skipif(not nginx(), reason="no nginx here")
def test_nginx_counts_deliveries_and_not_reads_of_its_counter() -> None:
    with private_directory() as directory, Nginx(Path(directory)) as receiver:
        assert receiver.hits() == 0

        def loop(_number: int) -> None:
            with wire.session() as session:
                for number in range(25):
                    wire.post(session, f"{receiver.url}{PATH}fastfast", wire.body(number))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(loop, range(4)))

        assert [receiver.hits(), receiver.hits()] == [100, 100]


def point(rows: int, workers: int) -> growth.Point:
    return growth.Point(
        rows=rows, workers=workers, pages=4_200, table_mb=17.25, indexes_mb=9.5, due_kb=176.0,
        vs_floor=[0.9, 0.5, 0.75], per_second=[1_000.0, 1_500.0, 1_250.0], costs={"WAL bytes": [2_300.0, 2_400.0]},
    )  # fmt: skip


def test_the_table_of_growth_has_a_line_for_each_point_with_the_ratio_and_its_range() -> None:
    head, one, other = growth.table([point(10_000, 1), point(10_000_000, 4)]).splitlines()

    assert "WAL bytes each" in head
    assert all(part in one for part in ("10,000", "0.75 (0.50, 0.90)", "1,250", "4,200", "17.2", "176", "2,350"))
    assert other.split()[:2] == ["10,000,000", "4"]


def test_the_file_of_growth_has_all_points_with_median_and_range() -> None:
    written = json.loads(growth.as_json([point(10_000, 1), point(10_000, 2)], {"rounds": 3}))

    assert [(one["rows"], one["workers"], one["pages"]) for one in written["growth"]] == [
        (10_000, 1, 4_200),
        (10_000, 2, 4_200),
    ]
    assert written["growth"][0]["vs_floor"] == {"median": 0.75, "min": 0.5, "max": 0.9}
    assert written["growth"][0]["costs"]["WAL bytes"]["max"] == 2_400
    assert written["details"]["about"] == {"rounds": 3}


def test_the_default_run_leaves_growth_out() -> None:
    assert growth not in ALL


@pytest.mark.processes
def test_processor_time_includes_children_that_ended() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    before = processor_time(os.getpid())

    subprocess.run([sys.executable, "-c", busy], check=True)

    assert processor_time(os.getpid()) - before > 0.25
