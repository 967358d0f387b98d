"""Who holds what, carried along from state to state, is what counting anew finds."""

from dataclasses import replace

import pytest

from controlplane.domain.event import AcceleratorHealthChanged, NodeRemoved
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.record import Outcome
from controlplane.domain.snapshot import Slot
from tests.builders import POLICIES, World, a_cluster, a_job, a_node, a_unit


def counted(world: World) -> dict[Slot, JobUid]:
    """Who holds each accelerator now, checked against a state that never counted before."""
    carried = world.state.snapshot(world.now)
    assert carried == replace(world.state).snapshot(world.now)
    return dict(carried.holders)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_starts_exits_and_forgotten_jobs_are_followed(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 4)
    assert counted(world) == {}
    world.submit(a_job("a").wanting(2), a_job("b").wanting(1)).cycle()
    assert sorted(counted(world).values()) == ["a", "a", "b"]
    world.runs("a").exits("a", units=[0])
    assert counted(world)[NodeId("n1"), AcceleratorId("n1-1")] == "a"
    assert ("n1", "n1-0") not in counted(world)
    world.exits("a").withdraw("b").cycle()
    world.exits("b", Outcome.LOST)
    assert counted(world) == {}
    world.cycle()
    assert "b" not in world.state.jobs
    assert counted(world) == {}


def test_what_moves_in_one_batch_is_followed() -> None:
    world = a_cluster().with_nodes(1, 4).submit(a_job("big").wanting(1, 4)).settle()
    assert set(counted(world).values()) == {"big"}
    world.submit(a_job("small").wanting(2)).settle()
    assert sorted(counted(world).values()) == ["big", "big", "small", "small"]


def test_strays_hold_until_they_are_gone() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job()).settle()
    (node,) = world.nodes_of("job")
    unit = a_unit(world, "job")
    world.lose(node)
    assert counted(world) == {}
    world.register(a_node(node, 1), unit)
    assert counted(world) == {(NodeId(node), f"{node}-0"): "job"}


def test_what_nodes_offer_is_followed() -> None:
    world = a_cluster().with_nodes(2, 2)

    def offered() -> dict[str, int]:
        counted(world)
        usable = world.state.snapshot(world.now).usable
        return {name: sum(map(len, offer.values())) for name, offer in usable.items()}

    assert offered() == {"n1": 2, "n2": 2}
    world.drain("n1")
    assert offered() == {"n1": 0, "n2": 2}
    world.drain("n1", drained=False)
    world.tell(AcceleratorHealthChanged(NodeId("n1"), AcceleratorId("n1-0"), "Xid 79"))
    assert offered() == {"n1": 1, "n2": 2}
    world.with_node(a_node("n3", 1)).lose("n2")
    assert offered() == {"n1": 1, "n2": 0, "n3": 1}
    world.tell(NodeRemoved(NodeId("n2")))
    assert offered() == {"n1": 1, "n3": 1}
    assert counted(world.submit(a_job())) == {}
    assert offered() == {"n1": 1, "n3": 1}
