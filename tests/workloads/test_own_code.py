"""Training code of the user's own, under Headrace: the same trainer, plans, stops and sentences."""

import re
from pathlib import Path
from typing import Any

import pytest

from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.storage import LocalStorage
from tests.workloads.attempts import Agent, Fork, Manifest, until

SCRIPT = Path(__file__).with_name("own_script.py")
COMPARED_STEPS = 20
TOLERANCE = 1e-4
ENDLESS = 100_000


def a_script(store: Path, *arguments: str, file: Path = SCRIPT, **training: Any) -> Manifest:
    """A job of the script."""
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "own"},
        "spec": {
            "accelerators": {"minimum": 1, "maximum": 4},
            "script": {"file": str(file), "arguments": list(arguments)},
            "training": {
                "globalBatchSize": 16,
                "steps": ENDLESS,
                "learningRate": 0.01,
                "seed": 3,
                **training,
            },
            "checkpoint": {"store": str(store), "everySteps": 1000, "keep": 2},
        },
    }


@pytest.fixture(scope="module")
def alone(fork: Fork, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of a run on one rank that nothing disturbs."""
    root = tmp_path_factory.mktemp("alone")
    agent = Agent(root / "control", fork)
    try:
        run = agent.start(a_script(root / "store")).reaches(COMPARED_STEPS).stop()
        assert {outcome for outcome, _ in run.outcomes()} == {"Stopped"}
        losses = run.losses()
        assert losses[1] - losses[COMPARED_STEPS] > 0.1, "it learns nothing, so it compares nothing"
        return losses
    finally:
        agent.end_all()


def _assert_same(found: dict[int, float], wanted: dict[int, float]) -> None:
    differences = {step: abs(found[step] - wanted[step]) for step in range(1, COMPARED_STEPS + 1)}
    assert max(differences.values()) <= TOLERANCE, differences


@pytest.mark.parametrize(
    ("ranks", "plan"), [(1, "dp1-ga4-gc"), (2, "dp2-z3-gc"), (2, "dp2-z1"), (2, "dp2-z2-offload")]
)
def test_every_plan_has_the_losses_of_one_rank(
    agent: Agent, store: Path, alone: dict[int, float], ranks: int, plan: str
) -> None:
    run = agent.start(a_script(store), ranks, plan=plan).reaches(COMPARED_STEPS).stop()
    assert len(run.outcomes()) == 1
    _assert_same(run.losses(), alone)


@pytest.mark.parametrize("plan", ["dp2", "dp2-z3", "tp2"])
def test_bf16_computes_coarsely_and_keeps_the_weights(
    agent: Agent, store: Path, alone: dict[int, float], plan: str
) -> None:
    run = agent.start(a_script(store, precision="bf16"), 2, plan=plan)
    run.reaches(COMPARED_STEPS).stop()
    assert len(run.outcomes()) == 1
    losses = run.losses()
    differences = [abs(losses[n] - alone[n]) / alone[n] for n in range(1, COMPARED_STEPS + 1)]
    assert 0 < max(differences) < 0.1


def test_the_plan_changes_on_the_way_and_a_stop_is_gone_on_from(
    agent: Agent, store: Path, alone: dict[int, float]
) -> None:
    run = agent.start(a_script(store), 2).reaches(4)
    run.ask_for("pp2.1f1b-ga2")
    until(lambda: "no change of plan: plan pp2" in run.units[0].output, lambda: "the refusal")
    for count, plan in enumerate(("dp2-z3-ga2-gc", "tp2"), start=1):
        run.ask_for(plan)
        until(lambda: len(run.changes()) == count, lambda: run.units[0].output)  # noqa: B023
    assert {outcome for outcome, _ in run.stop().outcomes()} == {"Stopped"}
    losses = run.losses()
    last = max(losses)
    again = agent.start(a_script(store), attempt=2).reaches(COMPARED_STEPS).stop()
    assert len(again.outcomes()) == 1
    assert min(again.losses()) == last + 1
    _assert_same(losses | again.losses(), alone)


def test_the_script_gets_the_trained_model_whatever_the_plan(
    agent: Agent, store: Path, alone: dict[int, float]
) -> None:
    run = agent.start(a_script(store, steps=30), 2, plan="dp2-z3")
    assert run.outcomes() == {("Succeeded", 30)}
    told = [re.search(r"rank \d: loss (.*) after step 30", unit.output) for unit in run.units]
    losses = {float(found[1]) for found in told if found}
    assert len(losses) == 1
    assert losses.pop() < alone[1] / 2
    newest = JobCheckpoints(LocalStorage(store), "job-1").whole()[-1].marker
    assert (newest.step, newest.plan) == (30, "dp2-z3")


def test_a_stop_before_the_first_step_is_no_failure(agent: Agent, store: Path) -> None:
    run = agent.start(a_script(store, "--do", "wait"), 2)
    until(lambda: "joined the rendezvous" in run.units[1].output, lambda: run.units[1].output)
    assert run.stop().outcomes() == {("Stopped", 0)}


def test_a_plan_of_stages_is_refused_before_training(agent: Agent, store: Path) -> None:
    run = agent.start(a_script(store), 2, plan="pp2.1f1b-ga2")
    assert run.reasons() == {"CannotBeTrained"}
    assert "wanted data or tensor parallelism" in run.exits()[0]["message"]
    assert "take dp2-z3" in run.exits()[1]["message"]


def test_a_division_that_does_not_work_is_refused_before_training(
    agent: Agent, store: Path
) -> None:
    run = agent.start(a_script(store, "--do", "halve"), 2)
    assert run.reasons() == {"CannotBeTrained"}
    for found in run.exits():
        assert "tensor_parallel: step: wanted the loss of each sample" in found["message"]
        assert "own_script.py, line" in found["message"]
        assert "tried on the CPU by 2 ranks before training" in found["message"]


def test_a_step_that_raises_ends_all_ranks_with_its_sentence(agent: Agent, store: Path) -> None:
    run = agent.start(a_script(store, "--do", "fall"), 2)
    assert run.reasons() == {"RankFailed"}
    assert run.exits()[1]["step"] == 1
    for found in run.exits():
        assert "ValueError: the sky fell (own_script.py, line" in found["message"]
        assert "float32[8, 2], float32[8, 1]" in found["message"]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("leave", "ended without training: wanted a call of train.run"),
        ("exit", "ended with exit status 3"),
    ],
)
def test_a_script_that_does_not_train_is_a_failure(
    agent: Agent, store: Path, what: str, sentence: str
) -> None:
    run = agent.start(a_script(store, "--do", what), 2)
    assert run.reasons() == {"RankFailed"}
    assert sentence in run.exits()[0]["message"]


def test_a_script_that_one_node_does_not_have_starts_nowhere(agent: Agent, store: Path) -> None:
    lost = a_script(store, file=Path("/nowhere/train.py"))
    run = agent.start(a_script(store), 2, manifests={1: lost})
    assert run.reasons() == {"StartRefused", "RankLost"}
    assert "there is no file /nowhere/train.py on this node" in run.exits()[0]["message"]
    assert not run.losses()


@pytest.mark.parametrize(
    ("files", "told", "traced"),
    [
        (
            {"a.py": "import nosuchmodule"},
            "a.py, line 1: ModuleNotFoundError: No module named 'nosuchmodule'",
            "    import nosuchmodule",
        ),
        ({"a.py": "x = 1\nprint(x"}, "a.py, line 2: SyntaxError: '(' was never closed", "print(x"),
        (
            {"a.py": "import b\nb.shape({})", "b.py": "def shape(of):\n    return of['width']"},
            "b.py, line 2: KeyError: 'width'",
            "b.shape({})",
        ),
        (
            {"a.py": "import json\njson.loads('')"},
            "a.py, line 2: JSONDecodeError: Expecting",
            "a.py",
        ),
        ({"a.py": "assert not 1"}, "a.py, line 1: AssertionError", "assert not 1"),
    ],
)
def test_a_mistake_outside_the_step_is_told_by_its_line(
    agent: Agent, store: Path, tmp_path: Path, files: dict[str, str], told: str, traced: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (unit,) = agent.start(a_script(store, file=tmp_path / "a.py")).units
    found = unit.exit()
    assert found["reason"] == "RankFailed"
    assert found["message"].startswith(told)
    assert "\n" not in found["message"]
    assert unit.output.count("Traceback") <= 1
    assert traced in unit.output
    assert "runpy" not in unit.output
    assert "launch.py" not in unit.output
