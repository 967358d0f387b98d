"""How good the last decision was, as Prometheus sees it."""

from dataclasses import replace

import pytest

from controlplane.baselines.equal_share import equal_share
from controlplane.domain.ids import JobUid
from controlplane.domain.policy import Decision
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.edges.telemetry import Telemetry
from controlplane.engine.loop import CycleReport
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.policy import Rubick
from headrace.api.plan import ExecutionPlan
from tests.builders import World, a_cluster, a_job


def shown(world: World) -> tuple[float, ...]:
    telemetry = Telemetry("0", lambda: 0)
    telemetry.cycle_ended(CycleReport(world.state, (), world.cycle()))
    names = ("headrace_round_value", "headrace_round_bound", "headrace_round_gap_ratio")
    found = [telemetry.registry.get_sample_value(name) for name in names]
    assert None not in found
    return tuple(each for each in found if each is not None)


def test_value_bound_and_gap_of_the_last_decision_are_shown() -> None:
    world = a_cluster().under(Rubick(FittedTimes())).with_nodes(1, 2).submit(a_job("a"))
    value, bound, gap = shown(world)
    assert 0 < value <= bound * (1 + 1e-9)
    assert gap == max(0.0, 1 - value / bound)


def test_targets_that_are_refused_alone_are_counted_apart_and_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def wrong_about_b(snapshot: ClusterSnapshot) -> Decision:
        decision = equal_share(snapshot)
        wrong = replace(decision.targets[JobUid("b")], plan=ExecutionPlan(data_parallel=7))
        return replace(decision, targets={**decision.targets, JobUid("b"): wrong})

    world = a_cluster().with_nodes(1, 2).submit(a_job("a"), a_job("b")).under(wrong_about_b)
    telemetry = Telemetry("0", lambda: 0)
    for _ in range(3):
        outcome = world.cycle(usable=False)
        telemetry.cycle_ended(CycleReport(world.state, (), outcome))
    count = telemetry.registry.get_sample_value
    assert count("headrace_policy_refused_targets_total", {"policy": "tried"}) == 3.0
    assert count("headrace_policy_refused_total", {"policy": "tried"}) is None
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "target refused" in line]
    assert "plan dp7 does not occupy 1 accelerator" in line


def test_a_policy_without_a_measure_shows_nothing() -> None:
    assert shown(a_cluster().with_nodes(1, 2).submit(a_job("a"))) == (0.0, 0.0, 0.0)
