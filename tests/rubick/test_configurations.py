"""Plans on placements become columns."""

import numpy as np
import pytest

from controlplane.rubick.configurations import Configurations, Shares
from headrace.api.plan import ExecutionPlan


def _of(plan: str, shares: Shares) -> Configurations:
    return Configurations.of([ExecutionPlan.parse(plan)], [shares], 64)


def test_the_smallest_and_the_largest_share_are_those_of_all_nodes() -> None:
    found = _of("dp8", (1, 4, 3))
    assert found.nodes == 3
    assert found.smallest_share == 1
    assert found.largest_share == 4


@pytest.mark.parametrize(
    ("plan", "shares", "nodes", "smallest"),
    [
        ("dp8", (4, 4), 2, 4),
        ("dp4-pp2.1f1b", (4, 4), 1, 4),
        ("dp2-tp4-pp2.1f1b", (8, 8), 1, 8),
        ("dp2-tp4-pp2.1f1b", (4, 4, 4, 4), 2, 4),
        ("dp4-pp2.1f1b", (3, 5), 2, 1),
    ],
)
def test_replicas_of_a_stage_are_where_their_ranks_are(
    plan: str, shares: Shares, nodes: int, smallest: int
) -> None:
    found = _of(plan, shares)
    assert found.replica_nodes == nodes
    assert found.replica_smallest_share == smallest


def test_only_several_nodes_can_be_uneven() -> None:
    assert _of("dp3", (3,)).uneven_nodes == 0
    assert _of("dp8", (3, 5)).uneven_nodes == 1
    assert _of("dp8", (2, 2, 1, 3)).uneven_nodes == 0.5


def test_a_placement_for_another_number_of_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted a placement of 8 .* got 7 \(4\+3\)"):
        _of("dp8", (4, 3))


def test_a_node_without_accelerators_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one accelerator on each node"):
        _of("dp8", (8, 0))


def test_each_plan_needs_a_placement() -> None:
    with pytest.raises(ValueError, match="got 1 plan and 0 placements"):
        Configurations.of([ExecutionPlan()], [], 64)


def test_none_at_all_are_no_rows() -> None:
    assert len(Configurations.of([], [], 64)) == 0


def test_some_can_be_taken() -> None:
    plans = [ExecutionPlan(n) for n in (1, 2, 4)]
    found = Configurations.of(plans, [(1,), (2,), (4,)], [8, 16, 32])
    assert found.take(np.array([2, 0])).samples.tolist() == [32, 8]
    assert found.take(found.accelerators > 1).accelerators.tolist() == [2, 4]
