"""What changes of plan or place cost so far, as a policy and people see it."""

from dataclasses import replace

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, load
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Outcome
from controlplane.domain.switch import Switch, SwitchKind
from controlplane.domain.switch_price import PAID_KEPT, SwitchPrice, price_of, sort_of
from controlplane.engine import switch_prices
from controlplane.engine.state import ClusterState
from controlplane.wire.translate import switch_price_to_wire
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node

MEMORY, RESTART = SwitchKind.MEMORY, SwitchKind.RESTART


def named(job: JobBuilder, preset: str = "small") -> JobBuilder:
    manifest = f'{{"spec": {{"model": {{"name": "gpt2", "preset": "{preset}"}}}}}}'
    return replace(job, job=replace(job.job, spec=replace(job.job.spec, manifest_json=manifest)))


JOB = named(a_job("a").wanting(2, 4).with_batch(8).under("dp2"))


def prices(world: World) -> dict[str, tuple[int, tuple[float, ...]]]:
    found = world.state.snapshot(world.now).switch_prices
    assert all(each.count >= len(each.last) for each in found.values())
    assert [each.seconds for each in found.values()] == [sum(each.last) for each in found.values()]
    return {sort: (each.count, each.last) for sort, each in found.items()}


def test_changes_in_memory_are_counted_by_model_and_numbers_of_accelerators() -> None:
    world = a_cluster().with_nodes(1, 4).submit(JOB).settle().trains("a", 7)
    for plan in ("tp2", "dp2", "dp4"):
        world.update(named(JOB.under(plan))).cycle()
        world.takes_up("a", step=9)
        world.tell(world.log[-1].event)
    assert prices(world) == {
        "gpt2-small 2 -> 2 Memory": (2, (0.5, 0.5)),
        "gpt2-small 2 -> 4 Memory": (1, (0.5,)),
    }
    assert sort_of("gpt2-small", 2, 4, MEMORY) in world.state.switch_prices
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state
    world.withdraw("a").settle()
    assert len(prices(world)) == 2, "they outlive the job"


def test_a_restart_costs_what_it_takes_without_waiting_for_others() -> None:
    world = a_cluster().with_node(a_node("n1", 4), a_node("n2", 2))
    world.submit(named(a_job("a").wanting(1, 4).with_batch(8))).settle().trains("a", 7)
    world.drain("n1").cycle()
    world.drain("n2").passes(3).exits("a", Outcome.STOPPED).cycle()
    assert prices(world) == {}
    world.passes(100).drain("n2", drained=False).cycle()
    world.passes(5).all_up("a").passes(7).trains("a", 8)
    (switch,) = world.job("a").switches
    assert (dict(switch.phases)["wait"], switch.stood_still_seconds) == (100, 115)
    assert prices(world) == {"gpt2-small 4 -> 2 Restart": (1, (15.0,))}
    world.trains("a", 9)
    assert prices(world) == {"gpt2-small 4 -> 2 Restart": (1, (15.0,))}


def test_an_attempt_that_follows_a_failure_is_no_switch() -> None:
    world = a_cluster().with_nodes(1, 2).submit(JOB).settle().trains("a", 7)
    world.update(named(JOB.under("tp2"))).cycle()
    world.takes_up("a").fails("a").passes(30).settle().trains("a", 8)
    assert world.attempt("a").number == 2
    assert prices(world) == {"gpt2-small 2 -> 2 Memory": (1, (0.5,))}


def test_another_models_switches_are_prices_of_their_own() -> None:
    world = a_cluster().with_nodes(1, 2).submit(JOB).settle().trains("a", 7)
    world.update(named(JOB.under("tp2"))).cycle()
    world.takes_up("a").withdraw("a").settle()
    other = named(a_job("b").wanting(2).with_batch(8).under("dp2"), "1.26b")
    world.submit(other).settle().trains("b", 7)
    world.update(other.under("tp2")).cycle()
    world.takes_up("b")
    assert list(prices(world)) == ["gpt2-small 2 -> 2 Memory", "gpt2-1.26b 2 -> 2 Memory"]


def test_quantiles_are_of_the_last_prices() -> None:
    price = SwitchPrice("m", 1, 2, MEMORY, 5, 110.0, (4.0, 1.0, 2.0, 3.0, 100.0), Instant(7))
    assert [price.quantile(share) for share in (0, 0.5, 0.625, 1)] == [1.0, 3.0, 3.5, 100.0]
    told = switch_price_to_wire(price)
    assert (told.count, told.seconds_total, told.median_seconds) == (5, 110.0, 3.0)
    assert (told.highest_seconds, told.kind) == (100.0, "Memory")
    assert (told.last_at.nanos, told.accelerators_after, round(told.p90_seconds, 1)) == (7, 2, 61.6)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_prices, "SORTS_KEPT", 2)
    world = a_cluster().with_nodes(1, 2).submit(JOB).settle().trains("a", 7)
    before, kept = world.job("a"), dict[str, SwitchPrice]()
    for turn in range(PAID_KEPT + 1):
        for ranks in (1, 2, 3) if turn == 0 else (1,):
            after = replace(before, switches=(a_switch(ranks, float(turn)),))
            switch_prices.paid(kept, before, after)
    assert list(kept) == ["gpt2-small 2 -> 3 Memory", "gpt2-small 2 -> 1 Memory"]
    found = kept["gpt2-small 2 -> 1 Memory"]
    # The first was forgotten when two others came.
    assert (found.count, found.last) == (PAID_KEPT, tuple(map(float, range(1, PAID_KEPT + 1))))
    switch_prices.paid(kept, before, replace(before, switches=(a_switch(1, 1000.0),)))
    found = kept["gpt2-small 2 -> 1 Memory"]
    assert (found.count, len(found.last), found.last[-1]) == (PAID_KEPT + 1, PAID_KEPT, 1000.0)


def a_switch(ranks: int, seconds: float, kind: SwitchKind = MEMORY) -> Switch:
    plan = ExecutionPlan(2)
    return Switch(
        kind, plan, plan, 2, ranks, ReasonCode.PLAN_CHANGED, 1, Instant(1), Instant(2), seconds
    )


def test_only_a_restart_waits() -> None:
    waited = (("drain", 1.0), ("wait", 4.0))
    assert price_of(replace(a_switch(2, 6.0, RESTART), phases=waited)) == 2.0
    assert price_of(replace(a_switch(2, 6.0), phases=waited)) == 6.0
