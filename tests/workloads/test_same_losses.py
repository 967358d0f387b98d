"""The losses of a job do not depend on how many ranks train it, or on changes on the way."""

from pathlib import Path

import pytest

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.storage import LocalStorage
from headrace.workloads.training.switching import Breakdown
from headrace.workloads.training.trainer import Change
from tests.workloads.attempts import Agent, Fork, a_manifest, until

COMPARED_STEPS = 30
TOLERANCE = 1e-4
ENDLESS = 100_000  # the steps of jobs that are stopped, so that no run is done too early


@pytest.fixture(scope="module")
def alone(fork: Fork, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of a run on one rank that nothing disturbs."""
    root = tmp_path_factory.mktemp("alone")
    agent = Agent(root / "control", fork)
    try:
        run = agent.start(a_manifest(root / "store", steps=ENDLESS)).reaches(COMPARED_STEPS).stop()
        assert {outcome for outcome, _ in run.outcomes()} == {"Stopped"}
        return run.losses()
    finally:
        agent.end_all()


def _assert_same(found: dict[int, float], wanted: dict[int, float]) -> None:
    differences = {step: abs(found[step] - wanted[step]) for step in range(1, COMPARED_STEPS + 1)}
    assert max(differences.values()) <= TOLERANCE, differences


@pytest.mark.parametrize(("ranks", "plan"), [(1, "dp1-ga4"), (2, "dp2-ga2"), (4, "dp4")])
def test_other_plans_give_the_same_losses(
    agent: Agent, store: Path, alone: dict[int, float], ranks: int, plan: str
) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), ranks, plan=plan)
    run.reaches(COMPARED_STEPS).stop()
    assert len(run.outcomes()) == 1
    _assert_same(run.losses(), alone)


def test_four_then_two_then_four_ranks_go_on_as_one_run(
    agent: Agent, store: Path, alone: dict[int, float]
) -> None:
    manifest = a_manifest(store, steps=ENDLESS)
    losses: dict[int, float] = {}
    for attempt, (ranks, stop_at) in enumerate([(4, 10), (2, 25), (4, COMPARED_STEPS)], start=1):
        run = agent.start(manifest, ranks, attempt=attempt).reaches(stop_at).stop()
        (outcome,) = run.outcomes()  # every rank stopped, and all at one step
        assert outcome[0] == "Stopped"
        part = run.losses()
        assert not losses.keys() & part.keys(), "a step was done twice"
        losses |= part
        assert max(losses) == outcome[1]
    assert sorted(losses) == list(range(1, max(losses) + 1)), "a step was lost"
    _assert_same(losses, alone)
    newest = JobCheckpoints(LocalStorage(store), "job-1").whole()[-1].marker
    assert (newest.step, newest.attempt, newest.plan) == (max(losses), 3, "dp4")


def test_the_plan_changes_while_the_ranks_stay(
    agent: Agent, store: Path, alone: dict[int, float]
) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), 4, plan="dp4").reaches(8)
    for number, plan in enumerate(["tp2-pp2.1f1b-ga2", "dp4-z3-gc"], start=1):
        run.ask_for(plan)
        until(lambda number=number: len(run.changes()) == number, lambda: run.units[0].output)  # type: ignore[misc]
    run.reaches(COMPARED_STEPS).stop()
    assert len(run.outcomes()) == 1
    _assert_same(run.losses(), alone)
    first, second = run.changes()
    assert (first["from"], first["to"]) == ("dp4", "tp2-pp2.1f1b-ga2")
    assert (second["from"], second["to"]) == ("tp2-pp2.1f1b-ga2", "dp4-z3-gc")
    assert second["step"] > first["step"] >= 8
    for change in (first, second):
        assert change["seconds"]["stood_still"] >= change["seconds"]["moments"] > 0
    marker = JobCheckpoints(LocalStorage(store), "job-1").whole()[-1].marker
    assert marker.plan == "dp4-z3-gc"
    again = agent.start(a_manifest(store, steps=ENDLESS), 2, attempt=2, plan="pp2.1f1b-ga4")
    assert min(again.reaches(marker.step + 2).stop().losses()) == marker.step + 1


def test_a_change_that_the_end_follows_is_told_with_what_is_known(
    agent: Agent, store: Path
) -> None:
    manifest = a_manifest(store, steps=2)
    run = agent.start(manifest, 2, only_unit=0)
    address = run.units[0].folder / "rendezvous"
    until(address.exists, lambda: run.units[0].output)
    run.ask_for("tp2")
    other = agent.start(manifest, 2, only_unit=1, rendezvous=address.read_text())
    ends = [unit.exit() for unit in (*run.units, *other.units)]
    assert {(end["outcome"], end["step"]) for end in ends} == {("Succeeded", 2)}
    (change,) = run.changes()
    took = change["seconds"]
    assert (change["from"], change["to"], change["step"]) == ("dp2", "tp2", 1)
    # How long a later step takes is not known, so nothing of the first one is counted.
    parts = sum(took[name] for name in ("build", "parameters", "equip", "moments"))
    assert took["stood_still"] == pytest.approx(parts, abs=0.0003)
    assert took["first_step"] > 0


def test_what_a_change_cost_is_seen_in_several_later_steps() -> None:
    took = Breakdown(build=0.25, parameters=0.25, equip=0.25, moments=0.25)
    change = Change("dp2", "tp2", 7, took, steps=[1.5, 0.5, 9.0, 0.25])
    told = change.told()["seconds"]
    assert isinstance(told, dict)
    assert (told["first_step"], told["stood_still"]) == (1.5, 2.0)


def test_a_plan_that_cannot_be_is_refused_and_training_goes_on(agent: Agent, store: Path) -> None:
    run = agent.start(a_manifest(store, steps=ENDLESS), 2).reaches(3)
    wishes = [
        ("dp2-ga5", "plan dp2-ga5: "),
        ("fast", "wanted a plan such as"),
    ]
    for plan, sentence in wishes:
        run.ask_for(plan)
        until(lambda said=sentence: said in run.units[0].output, lambda: run.units[0].output)  # type: ignore[misc]
    run.reaches(max(run.losses()) + 2).stop()
    assert {outcome for outcome, _ in run.outcomes()} == {"Stopped"}
    told = run.changes()
    assert [line["to"] for line in told] == [plan for plan, _ in wishes]
    for line, (_, sentence) in zip(told, wishes, strict=True):
        assert line["refused"].startswith(sentence)
