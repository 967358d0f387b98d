"""How good the last decision was, as Prometheus sees it."""

from controlplane.edges.telemetry import Telemetry
from controlplane.engine.loop import CycleReport
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.policy import Rubick
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


def test_a_policy_without_a_measure_shows_nothing() -> None:
    assert shown(a_cluster().with_nodes(1, 2).submit(a_job("a"))) == (0.0, 0.0, 0.0)
