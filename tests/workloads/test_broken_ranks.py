"""Ranks that hang, are cut off, or die while the plan changes: each is named, nothing committed
is lost.
"""

import os
import signal
from pathlib import Path

import pytest

from headrace.workloads.pace import Beat, hung, silent
from tests.workloads.attempts import Agent, Fork, Manifest, a_manifest

ENDLESS = 100_000
BREAKING = {"TEST_MODULE": "tests.workloads.breaking_unit"}


def impatient(store: Path) -> Manifest:
    manifest = a_manifest(store, steps=ENDLESS, everySteps=5)
    manifest["spec"]["retries"] = {"stallSeconds": 1}
    return manifest


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_hangs_is_named_by_the_one_that_waits(
    agent: Agent, store: Path, victim: int
) -> None:
    run = agent.start(impatient(store), 2).reaches(6)
    os.kill(run.units[victim].pid, signal.SIGSTOP)
    found = run.units[1 - victim].exit()
    assert (found["outcome"], found["reason"]) == ("Failed", "RankHung")
    assert f"rank {victim} gives no sign of life" in found["message"]
    assert f"rank {1 - victim} " not in found["message"]


def test_a_broken_connection_between_living_ranks_is_no_lost_rank(
    agent: Agent, store: Path
) -> None:
    broken = {**BREAKING, "TEST_BREAK": "cut-off", "TEST_BREAK_UNIT": "1"}
    run = agent.start(a_manifest(store, steps=ENDLESS), 2, environment=broken)
    assert run.reasons() == {"CommunicationFailed"}
    assert all("although all 2 are alive" in found["message"] for found in run.exits())


@pytest.fixture(scope="module")
def undisturbed(fork: Fork, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    alone = Agent(folder / "control", fork)
    run = alone.start(a_manifest(folder / "store", steps=16))
    run.exits()
    return run.losses()


@pytest.mark.parametrize(
    ("phase", "victim"),
    [("relaid", 0), ("parameters", 1), ("equip", 0), ("moments", 0), ("first-step", 0)],
)
def test_kill_9_while_the_plan_changes_resumes_from_the_last_checkpoint(
    agent: Agent, store: Path, undisturbed: dict[int, float], phase: str, victim: int
) -> None:
    manifest = a_manifest(store, steps=16, everySteps=4)
    environment = {
        **BREAKING,
        "TEST_BREAK": phase,
        "TEST_BREAK_UNIT": str(victim),
        "TEST_PLAN": "pp2.gpipe-ga2",
    }
    first = agent.start(manifest, 2, plan="dp2", environment=environment)
    survivor = first.units[1 - victim].exit()
    assert survivor["reason"] == "RankLost"
    assert f"rank {victim}" in survivor["message"]
    assert not (first.units[victim].folder / "exit.json").exists()
    assert first.changes() == []
    second = agent.start(manifest, 2, plan="pp2.gpipe-ga2", attempt=2)
    assert second.outcomes() == {("Succeeded", 16)}
    assert min(second.losses()) in (5, 9)
    assert max(first.losses()) in (10, 11)
    for step, loss in {**first.losses(), **second.losses()}.items():
        assert loss == pytest.approx(undisturbed[step], abs=1e-4)


def a_beat(count: int, step: int, left_seconds: float, *, waits: bool = True) -> Beat:
    return Beat(count, step, "step", left_seconds, "file.py:1 in function", waits)


def test_whoever_gives_no_two_signs_of_life_is_silent() -> None:
    before = {0: a_beat(10, 3, 0), 1: a_beat(7, 3, 0)}
    after = {0: a_beat(12, 3, 0), 1: a_beat(8, 3, 0)}
    assert silent(before, after, 3) == [1, 2]


@pytest.mark.parametrize(
    ("beats", "sentence"),
    [
        # Behind the others, or at the same step in code of its own.
        ({0: a_beat(9, 8, -1), 1: a_beat(9, 7, -1)}, "rank 1 hangs in step 7"),
        ({0: a_beat(9, 8, -1, waits=False), 1: a_beat(9, 8, -1)}, "rank 0 hangs in step 8"),
        ({0: a_beat(9, 8, -1), 1: a_beat(9, 8, -1)}, "all ranks live and wait for each other"),
        ({0: a_beat(9, 8, -1)}, "rank 0 hangs in step 8"),
        # Rank 1 commits a checkpoint, which may take longer than a step.
        ({0: a_beat(9, 8, -1), 1: a_beat(9, 7, 900)}, None),
    ],
)
def test_of_living_ranks_the_one_is_named_that_waits_for_nobody(
    beats: dict[int, Beat], sentence: str | None
) -> None:
    told = hung([], beats)
    assert told is None if sentence is None else told is not None and sentence in told
