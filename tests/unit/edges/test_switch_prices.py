"""What changes of plan or place cost, as Prometheus sees it."""

from controlplane.domain.record import Outcome
from controlplane.edges.telemetry import Telemetry
from controlplane.engine.loop import CycleReport
from tests.builders import World, a_cluster, a_job

JOB = a_job("a").wanting(2, 4).with_batch(8).under("dp2")


def prices(telemetry: Telemetry) -> dict[str, tuple[float, float]]:
    """How many switches of each kind there were, and for how long jobs stood still in all."""
    found: dict[str, dict[str, float]] = {}
    for family in telemetry.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("headrace_switch_stood_still_seconds"):
                part = sample.name.rpartition("_")[2]
                if part in ("count", "sum"):
                    found.setdefault(sample.labels["kind"], {})[part] = sample.value
    return {kind: (parts["count"], parts["sum"]) for kind, parts in found.items()}


def seen(telemetry: Telemetry, world: World) -> None:
    outcome = world.cycle()
    telemetry.cycle_ended(CycleReport(world.state, (), outcome))


def test_every_switch_is_counted_once_by_how_it_was_made() -> None:
    world, telemetry = a_cluster().with_nodes(1, 4), Telemetry("0", lambda: 0)
    world.submit(JOB).settle()
    seen(telemetry, world)
    for plan in ("tp2", "dp2"):
        world.update(JOB.under(plan)).cycle()
        world.takes_up("a")
        seen(telemetry, world)
        seen(telemetry, world)
    assert prices(telemetry) == {"memory": (2, 1.0)}
    world.update(JOB.under("tp2")).cycle()
    world.takes_up("a", refused="as played").cycle()
    world.exits("a", Outcome.STOPPED).passes(4).settle()
    seen(telemetry, world)
    assert prices(telemetry) == {"memory": (2, 1.0), "restart": (1, 4.0)}


def test_what_was_switched_before_it_began_is_not_counted_again() -> None:
    world = a_cluster().with_nodes(1, 2).submit(JOB).settle()
    world.update(JOB.under("tp2")).settle()
    telemetry = Telemetry("0", lambda: 0)
    seen(telemetry, world)
    assert prices(telemetry) == {}
