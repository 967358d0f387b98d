"""Every plan trains the same model, and a change of plan on the way changes nothing.

``make test`` runs a sample; ``make plans`` runs every feasible plan, and as many random walks as
``WALKS`` says.
"""

import json
import os
import random
import socket
from pathlib import Path

import pytest

from headrace.api.feasible_plans import feasible_plans
from headrace.api.plan import ExecutionPlan
from tests.workloads.attempts import Fork, alive, until
from tests.workloads.plan_ranks import GLOBAL_BATCH, SHAPES

RANKS = 4
STEPS_OF_WALK = 3
TOLERANCE = 1e-4
WHOLE = bool(os.environ.get("HEADRACE_ALL_PLANS"))
STEPS = 20 if WHOLE else 10
WALKS = int(os.environ.get("HEADRACE_WALKS", "1"))
SAMPLE = {
    "gpt2": ["dp1-gc", "dp4-z1", "dp2-tp2-z3", "tp4", "pp4.1f1b-ga4", "pp2.zb-ga4"],
    "llama": ["dp4-z3-ga2-gc-offload", "tp2-pp2.interleaved-ga4", "dp2-pp2.gpipe-z2-ga4", "dp2-z2"],
    "bert": ["dp2-z1", "dp2-ga2"],
    "roberta": ["dp4-gc"],
    "t5": ["dp2-z3-ga2-gc"],
    "vit": ["dp2-z2-offload"],
}
DATA_PARALLEL_ONLY = ("bert", "roberta", "t5", "vit")


class Matrix:
    """Starts ranks that train under plans, and reads their losses."""

    def __init__(self, fork: Fork, root: Path) -> None:
        self._fork, self._root = fork, root
        self._count = 0

    def trained(
        self,
        model: str,
        walks: list[list[str]],
        *,
        steps: int,
        ranks: int = RANKS,
        joins: bool = False,
    ) -> list[list[float]]:
        """Losses of each walk."""
        self._count += 1
        output = self._root / f"run-{self._count}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        asked = {"model": model, "ranks": ranks, "steps": steps, "walks": walks, "joins": joins}
        pids = [
            self._fork(
                {
                    "TEST_MODULE": "tests.workloads.plan_ranks",
                    "TEST_RANK": str(rank),
                    "TEST_PORT": str(port),
                    "TEST_WALKS": json.dumps(asked),
                    "TEST_OUTPUT": str(output),
                },
                output.with_suffix(f".log-{rank}"),
            )
            for rank in range(ranks)
        ]
        until(lambda: not any(map(alive, pids)), lambda: output.name, seconds=3600.0)
        return [_read(output, ranks, index, walk) for index, walk in enumerate(walks)]


def _read(output: Path, ranks: int, index: int, walk: list[str]) -> list[float]:
    for rank in range(ranks):
        file = Path(f"{output}.{rank}")
        lines = file.read_text().splitlines() if file.exists() else []
        found = json.loads(lines[index]) if index < len(lines) else {}
        if "error" in found:
            raise AssertionError(f"rank {rank}, {walk}: {found['error']}")
        if rank == 0:
            logs = "\n".join(p.read_text()[-2000:] for p in output.parent.glob("*.log-*"))
            assert found, f"rank 0 never came to {walk}\n{logs}"
            losses: list[float] = found["losses"]
    return losses


@pytest.fixture
def matrix(fork: Fork, tmp_path: Path) -> Matrix:
    return Matrix(fork, tmp_path)


def _all_plans(model: str) -> list[str]:
    found = {
        str(plan)
        for ranks in (1, 2, RANKS)
        for plan in feasible_plans(SHAPES[model], ranks, GLOBAL_BATCH)
    }
    return sorted(found)


def _differences(found: list[float], wanted: list[float]) -> float:
    assert len(found) == len(wanted)
    return max(abs(ours - theirs) for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    "model", [m if m == "gpt2" else pytest.param(m, marks=pytest.mark.long) for m in SHAPES]
)
def test_every_plan_has_the_losses_of_a_single_rank(matrix: Matrix, model: str) -> None:
    plans = _all_plans(model) if WHOLE else SAMPLE[model]
    assert set(plans) <= set(_all_plans(model))
    (alone,) = matrix.trained(model, [["dp1"]], steps=STEPS, ranks=1)
    assert alone[0] - alone[-1] > 0.1, "it learns nothing, so it compares nothing"
    ranks = max(ExecutionPlan.parse(plan).ranks for plan in plans)
    losses = matrix.trained(model, [[plan] for plan in plans], steps=STEPS, ranks=ranks)
    far = {
        plan: difference
        for plan, found in zip(plans, losses, strict=True)
        if (difference := _differences(found, alone)) > TOLERANCE
    }
    assert not far


@pytest.mark.long
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_random_walks_through_plans_have_the_losses_of_a_single_rank(
    matrix: Matrix, model: str
) -> None:
    chance = random.Random() if WHOLE else random.Random(f"{model}/4")
    plans = _all_plans(model)
    walks = [chance.sample(plans, k=min(len(plans), 6)) for _ in range(WALKS)]
    (alone,) = matrix.trained(model, [["dp1"]], steps=6 * STEPS_OF_WALK, ranks=1)
    for walk, found in zip(walks, matrix.trained(model, walks, steps=STEPS_OF_WALK), strict=True):
        assert _differences(found, alone) <= TOLERANCE, walk


def test_a_rank_that_joins_and_leaves_again_changes_no_loss(matrix: Matrix) -> None:
    (alone,) = matrix.trained("gpt2", [["dp1"]], steps=3 * STEPS_OF_WALK, ranks=1)
    walk = ["dp1", "dp2-z2", "dp1"]
    (found,) = matrix.trained("gpt2", [walk], steps=STEPS_OF_WALK, ranks=2, joins=True)
    assert _differences(found, alone) <= TOLERANCE
