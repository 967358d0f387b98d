"""Planned stops, resuming, and starting from another job's checkpoint."""

import os
import signal
from pathlib import Path

import pytest

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.storage import LocalStorage
from tests.workloads.attempts import Agent, a_manifest, alive, until

ENDLESS = 100_000


def steps(store: Path, uid: str = "job-1") -> list[int]:
    return [found.marker.step for found in JobCheckpoints(LocalStorage(store), uid).whole()]


def test_a_run_ends_with_a_checkpoint_and_keeps_the_newest(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=11, everySteps=2, keep=3))
    assert run.outcomes() == {("Succeeded", 11)}
    assert steps(store) == [8, 10, 11]
    checkpointed = [line["checkpoint_step"] for line in run.progress()]
    assert checkpointed == sorted(checkpointed)
    assert checkpointed[-1] == 11
    assert not list((store / "job-1").glob("proof-*"))


def test_with_all_steps_done_there_is_nothing_to_do(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=5)
    agent.start(manifest).exits()
    again = agent.start(manifest, 2, attempt=2)
    assert again.outcomes() == {("Succeeded", 5)}
    assert "nothing left to do" in again.exits()[0]["message"]
    assert again.losses() == {}


def test_with_all_steps_done_unit_0_ends_with_the_others(agent: Agent, store: Path) -> None:
    manifest = a_manifest(store, steps=5)
    agent.start(manifest).exits()
    impatient = {"TEST_MODULE": "tests.workloads.impatient_unit"}
    first = agent.start(manifest, 2, attempt=2, only_unit=0, environment=impatient).units[0]
    proof = store / "job-1" / "proof-00002"
    until(lambda: proof.exists() or not alive(first.pid), lambda: first.output)
    address = (first.folder / "rendezvous").read_text()
    late = agent.start(manifest, 2, attempt=2, only_unit=1, rendezvous=address).units[0]
    for unit in (first, late):
        assert (unit.exit()["outcome"], unit.exit()["step"]) == ("Succeeded", 5)
    assert not proof.exists()


def test_a_checkpoint_that_has_all_steps_is_of_the_jobs_model(agent: Agent, store: Path) -> None:
    agent.start(a_manifest(store, steps=5)).exits()
    other = a_manifest(store, steps=5, startFrom={"uid": "job-1"})
    other["spec"]["model"]["config"]["hiddenSize"] = 64
    run = agent.start(other, uid="job-2")
    assert run.reasons() == {"CannotBeTrained"}
    assert "is of another model" in run.exits()[0]["message"]


@pytest.mark.parametrize("steps", [4, 5])
def test_a_start_from_as_many_steps_as_are_asked_for_is_refused(
    agent: Agent, store: Path, steps: int
) -> None:
    agent.start(a_manifest(store, steps=5)).exits()
    new = a_manifest(store, steps=steps, warmupSteps=1, startFrom={"uid": "job-1"})
    run = agent.start(new, 2, uid="job-2")
    assert run.reasons() == {"CannotBeTrained"}
    assert run.exits()[0]["message"] == (
        f"startFrom: 5 steps were done there, {steps} were asked for; training.steps counts those "
        "too, so ask for more than 5"
    )


def test_one_ranks_stop_stops_all_at_one_step(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), 2).reaches(3)
    os.kill(run.units[1].pid, signal.SIGTERM)
    (outcome,) = run.outcomes()
    assert outcome == ("Stopped", max(run.losses()))
    assert steps(store) == [outcome[1]]
    assert not any("Warning" in unit.output for unit in run.units)


def test_a_stop_before_the_first_step_saves_nothing(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), stop_first=True)
    assert run.outcomes() == {("Stopped", 0)}
    assert run.losses() == {}
    assert steps(store) == []


def test_a_stop_while_waiting_for_other_ranks(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), 2, only_unit=0)
    run.stop()  # rank 1 never comes
    assert run.outcomes() == {("Stopped", 0)}


def test_time_also_makes_checkpoints(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS, everySeconds=1))
    while not any(line["checkpoint_step"] for line in run.progress()):
        run.reaches(max(run.losses(), default=0) + 1)
    assert run.stop().outcomes() == {("Stopped", max(run.losses()))}


def test_a_new_job_starts_from_an_old_one(agent: Agent, store: Path, tmp_path: Path) -> None:
    long = a_manifest(store, steps=12, everySteps=4)
    whole = agent.start(long, uid="old")
    assert whole.outcomes() == {("Succeeded", 12)}
    elsewhere = a_manifest(
        tmp_path / "other", steps=12, startFrom={"uid": "old", "step": 8, "store": str(store)}
    )
    new = agent.start(elsewhere, 2, uid="new")
    assert new.outcomes() == {("Succeeded", 12)}
    assert sorted(new.losses()) == [9, 10, 11, 12]
    for step, loss in new.losses().items():
        assert loss == pytest.approx(whole.losses()[step], abs=1e-5)
    assert steps(tmp_path / "other", "new") == [12]
    assert steps(store, "old") == [4, 8, 12]


def test_a_start_from_nothing_is_refused(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, startFrom={"uid": "nobody"}))
    (found,) = run.exits()
    assert (found["outcome"], found["reason"]) == ("Failed", "CannotBeTrained")
    assert "job nobody has no checkpoint" in found["message"]
    assert "there are none at all" in found["message"]


def test_a_job_does_not_go_on_with_other_settings(agent: Agent, store: Path) -> None:
    agent.start(a_manifest(store, steps=3)).exits()
    run = agent.start(a_manifest(store, steps=6, globalBatchSize=8), attempt=2)
    assert run.reasons() == {"CannotBeTrained"}
    assert "globalBatchSize: 16 -> 8" in run.exits()[0]["message"]
    assert steps(store) == [3]
