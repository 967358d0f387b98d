"""What changes of plan or place cost, as Prometheus sees it."""

from prometheus_client import generate_latest

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


def sorts(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """The summary of prices by model and accelerators: (model, before, after, kind, what)."""
    found = {}
    for family in telemetry.registry.collect():
        if family.name == "headrace_switch_price_seconds":
            for sample in family.samples:
                labels = dict(sample.labels)
                what = labels.pop("quantile", sample.name.rpartition("_")[2])
                found[(*labels.values(), what)] = sample.value
    return found


def test_prices_are_told_by_model_and_accelerators_also_of_before_it_began() -> None:
    world = a_cluster().with_nodes(1, 4).submit(JOB).settle()
    world.update(JOB.under("tp2")).settle()
    telemetry = Telemetry("0", lambda: 0)
    assert sorts(telemetry) == {}
    seen(telemetry, world)
    world.update(JOB.under("dp4")).cycle()
    world.takes_up("a")
    seen(telemetry, world)
    of_all = {"0.5": 0.5, "0.9": 0.5, "count": 1, "sum": 0.5}
    assert sorts(telemetry) == {
        ("", "2", after, "memory", what): value
        for after in ("2", "4")
        for what, value in of_all.items()
    }
    page = generate_latest(telemetry.registry).decode()
    assert "# TYPE headrace_switch_price_seconds summary" in page
