"""Negative controls: without a guard, the tests that depend on it must fail, and the soak too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import test_redis_faults as redis_faults, test_worker_faults as worker_faults
from tests.support.fault_environment import FaultEnvironment, running_fault_environment
from tests.support.paths import ROOT

pytestmark = pytest.mark.acceptance

TESTS = [
    ("claim", worker_faults.test_fault_02_kill_after_claim),
    ("claim", redis_faults.test_fault_14_redis_flushall),
    ("claim", redis_faults.test_fault_15_redis_client_kill),
    ("claim", worker_faults.test_fault_18_lock_expires_while_its_holder_sends),
    ("fence", worker_faults.test_fault_20_stale_failure_changes_nothing),
    ("lock", worker_faults.test_fault_20_record_of_a_stopped_worker_with_its_key_is_not_sent_again),
]


@pytest.mark.parametrize(("control", "test"), TESTS, ids=[f"{control}-{test.__name__}" for control, test in TESTS])
def test_fault_test_fails_without_the_guard(
    control: str, test: Callable[[FaultEnvironment], None], tmp_path: Path
) -> None:
    with running_fault_environment(tmp_path, CONTROL=control) as environment, pytest.raises(AssertionError):
        test(environment)


@pytest.mark.parametrize(
    ("control", "faults"), [("claim", "redis-clients"), ("fence", "long-stop"), ("lock", "short-stop")]
)
def test_soak_fails_without_the_guard(control: str, faults: str) -> None:
    # A seed decides which faults happen, not the timing of the processes: a fault may have no effect once or twice.
    soaks = (_soak(control, faults, seed) for seed in ("1", "2", "3"))
    broken = next((soak for soak in soaks if soak.returncode), None)

    assert broken, f"the promise held three times without the {control}"
    assert broken.returncode == 1, broken.stdout
    assert "the promise was broken" in broken.stdout
    assert "duplicates_outside_window: 0\n" not in broken.stdout


def _soak(control: str, faults: str, seed: str) -> subprocess.CompletedProcess[str]:
    knobs = {"CHAOS_CONTROL": control, "CHAOS_FAULTS": faults, "CHAOS_SEED": seed}
    knobs |= {"CHAOS_MINUTES": "0.45", "CHAOS_RATE": "90", "CHAOS_JSON": ""}
    return subprocess.run(
        [sys.executable, "-m", "dev.chaos"],
        cwd=ROOT, env=os.environ | knobs, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
