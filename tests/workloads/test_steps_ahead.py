"""On a GPU a step is sent before the loss of the one before is known: nothing is lost by that."""

from pathlib import Path
from typing import Any

import pytest

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.storage import LocalStorage
from tests.workloads.attempts import Agent, a_manifest

AHEAD = {"TEST_MODULE": "tests.workloads.ahead_unit"}


def steps(store: Path) -> list[int]:
    return [found.marker.step for found in JobCheckpoints(LocalStorage(store), "job-1").whole()]


def test_every_step_is_told_once_and_saved_as_it_was(
    agent: Agent, store: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"steps": 12, "everySteps": 5, "keep": 3}
    plain = agent.start(a_manifest(tmp_path / "other", **asked))
    run = agent.start(a_manifest(store, **asked), 2, environment=AHEAD)
    assert run.outcomes() == plain.outcomes() == {("Succeeded", 12)}
    assert [line["step"] for line in run.progress() if line["loss"]][-1] == 12
    assert run.losses() == pytest.approx(plain.losses(), abs=1e-5)
    assert steps(store) == [5, 10, 12]
    assert all(line["step_seconds"] > 0 for line in run.progress())


def test_it_stops_and_changes_at_a_step_that_all_have_done(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=100_000, everySteps=100_000)
    run = agent.start(manifest, 2, plan="dp2", environment=AHEAD).reaches(4)
    run.ask_for("pp2.1f1b-ga4")
    (change,) = run.changed(1)
    run.reaches(change["step"] + 4).stop()
    ((outcome, last),) = run.outcomes()
    assert (outcome, last) == ("Stopped", max(run.losses()))
    assert sorted(run.losses()) == list(range(1, last + 1))
    assert steps(store) == [last]
    again = agent.start(manifest, 2, attempt=2, plan="dp2").reaches(last + 2)
    assert min(again.losses()) == last + 1


def test_a_loss_that_is_not_finite_ends_it_with_its_own_step(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=50, learningRate=1e9, warmupSteps=0)
    run = agent.start(manifest, 1, environment=AHEAD)
    assert run.reasons() == {"LossNotFinite"}
    failed = max(run.losses()) + 1
    assert f"the loss of step {failed} is" in run.exits()[0]["message"]
