"""Ranks come to a training that goes on, and leave it again, and change none of its losses."""

from pathlib import Path

import pytest

from tests.workloads.attempts import Agent, Attempt, Manifest, a_manifest

TOLERANCE = 1e-4
ENDLESS = 100_000
UNEVEN = {
    # Sizes that ranks and stages do not divide evenly.
    "gpt2": {"numHiddenLayers": 5, "hiddenSize": 40, "numAttentionHeads": 4},
    "llama": {"numHiddenLayers": 4, "hiddenSize": 32, "numAttentionHeads": 4},
}
WALKS = {
    "gpt2": ["dp2-z2", "dp1", "tp2", "dp2-tp2", "pp2.1f1b-ga4", "dp1-gc"],
    "llama": ["tp2", "dp4-z3", "dp2-tp2", "tp2", "dp1"],
}


def endless(store: Path, model: str = "gpt2", **training: int) -> Manifest:
    manifest = a_manifest(store, model, steps=ENDLESS, **training)
    manifest["spec"]["model"]["config"] = UNEVEN[model]
    return manifest


def go_to(agent: Agent, run: Attempt, plan: str) -> None:
    """Have the attempt go over to a plan, whatever its number of ranks."""
    before, times = len(run.ranks), len(run.changes())
    agent.add(run, plan)
    leaving = run.shrink(plan)
    change = run.changed(times + 1)[-1]
    assert change["to"] == plan, change
    for unit in leaving:
        found = unit.exit()
        assert (found["outcome"], found["step"]) == ("Stopped", change["step"])
        assert found["message"] == f"left: training goes on on {len(run.ranks)} ranks"
    assert ("join" in change["seconds"]) >= (len(run.ranks) > before)
    assert ("prepare" in change["seconds"]) is (len(run.ranks) > before)


def assert_same(run: Attempt, wanted: dict[int, float]) -> None:
    found = run.losses()
    assert sorted(found) == list(range(1, len(found) + 1)), "a step was lost or done twice"
    differences = {step: abs(loss - wanted[step]) for step, loss in found.items()}
    assert max(differences.values()) <= TOLERANCE, differences


@pytest.mark.parametrize("model", WALKS)
def test_ranks_come_and_go_and_the_losses_stay_those_of_one_rank(
    agent: Agent, store: Path, tmp_path: Path, model: str
) -> None:
    run = agent.start(endless(store, model), plan="dp1").reaches(3)
    for plan in WALKS[model]:
        go_to(agent, run, plan)
    run.stop()
    last = max(run.losses())
    alone = agent.start(endless(tmp_path / "alone", model), plan="dp1").reaches(last + 1).stop()
    assert_same(run, alone.losses())
