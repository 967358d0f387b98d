"""Racks and NVLink islands, under every policy."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from controlplane.baselines import baselines
from controlplane.domain.ids import AcceleratorId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.policy import Policy
from controlplane.domain.reason import ReasonCode
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from tests.builders import POLICIES, World, a_cluster, a_job, a_node, a_unit
from tests.step_tables import A800, KIND, a_measured_job

LLAMA = "dp2-tp4-pp2.1f1b-ga4"
"""The plan that was measured on two nodes of eight."""

EVERY_POLICY = pytest.mark.parametrize("policy", list(POLICIES))
MEASURED: Mapping[str, Policy] = {
    **baselines(A800, 78.0),
    "rubick": Rubick(lambda _: A800, RubickSettings(switch_seconds=10.0)),
}
EVERY_MEASURED_POLICY = pytest.mark.parametrize("policy", list(MEASURED))


def a_row(world: World, racks: str, count: int = 8, kind: str = KIND) -> World:
    """Nodes ``n0`` and so on, each in the rack of its letter, ``.`` for none."""
    return world.with_node(
        *(a_node(f"n{i}", count, kind, rack=rack.strip(".")) for i, rack in enumerate(racks))
    )


@EVERY_POLICY
def test_a_job_on_two_nodes_is_in_one_rack_where_one_has_them(policy: str) -> None:
    world = a_row(a_cluster(policy), "abb", count=4)
    world.submit(a_job("wide").wanting(8)).settle()
    assert world.nodes_of("wide") == {"n1", "n2"}


@EVERY_POLICY
def test_a_small_job_leaves_a_whole_rack_to_others(policy: str) -> None:
    world = a_row(a_cluster(policy), "aab", count=4)
    world.submit(a_job("small").wanting(2)).settle()
    assert world.nodes_of("small") == {"n2"}


@EVERY_POLICY
def test_a_required_rack_is_waited_for_and_the_reason_says_so(policy: str) -> None:
    world = a_row(a_cluster(policy), "aabb", count=4)
    ends = [
        a_job(f"one-{i}").wanting(4).selecting(**{"headrace.dev/rack": "ab"[i]}) for i in (0, 1)
    ]
    world.submit(*ends).settle()
    world.submit(a_job("wide").wanting(8).in_one_rack()).settle()
    assert world.stage("wide") is Stage.QUEUED
    why = world.why("wide")
    assert why.code is ReasonCode.WAITING_FOR_ACCELERATORS
    assert why.message == "wants 8 accelerators in one rack, 4 free for it in one rack"
    assert (why.wanted, why.available) == (8, 4)
    assert set(why.holders) == {"one-0", "one-1"}
    world.exits("one-1").settle()
    assert world.nodes_of("wide") == {"n2", "n3"}


@EVERY_POLICY
@pytest.mark.parametrize(
    ("racks", "says"),
    [
        (
            "ab",
            "wants 8 accelerators in one rack, the usable nodes have 4 for it in one rack, and 8 "
            "in all: topology Any in its spec would let it have those",
        ),
        (
            "..",
            "wants 8 accelerators in one rack, the usable nodes have 4 for it in one rack, and 8 "
            "in all; no node tells its rack, so only a node for itself counts as one: the agents' "
            "option --rack would help",
        ),
    ],
)
def test_what_no_rack_has_is_said_with_what_would_help(policy: str, racks: str, says: str) -> None:
    world = a_row(a_cluster(policy), racks, count=4)
    world.submit(a_job("wide").wanting(8).in_one_rack(), a_job("plain")).settle()
    why = world.why("wide")
    assert (why.code, why.message) == (ReasonCode.EXCEEDS_CLUSTER, says)
    assert (why.wanted, why.available) == (8, 4)
    assert world.stage("plain") is Stage.RUNNING


@EVERY_POLICY
def test_one_node_is_in_one_rack_whatever_it_tells(policy: str) -> None:
    world = a_row(a_cluster(policy), "..", count=4)
    world.submit(a_job("wide").wanting(4).in_one_rack()).settle()
    assert world.stage("wide") is Stage.RUNNING


@EVERY_POLICY
def test_a_job_whose_nodes_are_in_one_rack_no_more_goes_where_they_are(policy: str) -> None:
    world = a_row(a_cluster(policy), "aabb", count=4)
    world.submit(a_job("wide").wanting(8).in_one_rack(), a_job("other").wanting(8)).settle()
    units = world.attempt("wide").placement.units
    moved = units[0].node
    there = [a_unit(world, "wide", unit.index) for unit in units if unit.node == moved]
    world.register(a_node(moved, 4, KIND, rack="c"), *there).settle()
    assert world.stage("other") is Stage.RUNNING
    if world.stage("wide") is Stage.QUEUED:  # Not all policies move the other one for it.
        world.exits("other").settle()
    assert _racks(world, "wide") in ({"a"}, {"b"})


@pytest.mark.parametrize("policy", ["equal-share"])
def test_a_job_grows_only_in_its_rack(policy: str) -> None:
    world = a_row(a_cluster(policy), "ab", count=4)
    world.submit(a_job("wide").wanting(1, 8).in_one_rack()).settle()
    assert world.held("wide") == 4
    (rack,) = _racks(world, "wide")
    world.with_node(a_node("n2", 4, KIND, rack=rack)).settle()
    assert world.held("wide") == 8
    assert len(_racks(world, "wide")) == 1


def _racks(world: World, name: str) -> set[str]:
    return {world.state.racks[node] for node in world.attempt(name).placement.nodes}


@EVERY_MEASURED_POLICY
def test_what_lies_as_it_was_measured_lies_in_one_rack(policy: str) -> None:
    world = a_row(a_cluster().under(MEASURED[policy]), "abcbc")
    world.submit(a_measured_job("wide", "llama7", LLAMA).under(LLAMA)).settle()
    assert len(world.nodes_of("wide")) in (2, 4)
    assert len(_racks(world, "wide")) == len(world.nodes_of("wide")) // 2


@EVERY_MEASURED_POLICY
def test_a_measured_job_waits_for_its_rack(policy: str) -> None:
    world = a_row(a_cluster().under(MEASURED[policy]), "aabb")
    only = a_measured_job("wide", "llama7", LLAMA).under(LLAMA)
    ends = [
        a_measured_job(f"one-{i}", "bert", "dp8")
        .under("dp8")
        .selecting(**{"headrace.dev/rack": "ab"[i]})
        for i in (0, 1)
    ]
    world.submit(*ends).settle()
    world.submit(only.in_one_rack()).settle(40)
    assert world.stage("wide") is Stage.QUEUED
    world.exits("one-0").passes(400).settle(40)
    assert world.nodes_of("wide") == {"n0", "n1"}


@EVERY_POLICY
def test_tensor_parallel_ranks_are_in_one_island(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n", 8, KIND, island_of=4))
    world.submit(a_job("small").wanting(1)).settle()
    world.submit(a_job("group").wanting(4).with_batch(4).under("tp4")).settle()
    world.submit(a_job("pair").wanting(2).with_batch(4).under("tp2")).settle()
    assert _islands(world, "group") != _islands(world, "small")
    assert _islands(world, "pair") == _islands(world, "small")
    assert len(_islands(world, "group")) == len(_islands(world, "pair")) == 1


def _islands(world: World, name: str) -> set[str]:
    known = {a.id: a.island for n in world.state.nodes.values() for a in n.node.accelerators}
    units = world.attempt(name).placement.units
    return {known[AcceleratorId(each)] for unit in units for each in unit.accelerators}


@pytest.mark.parametrize("policy", ["fifo", "equal-share"])
def test_a_group_goes_to_the_node_that_has_an_island_for_it(policy: str) -> None:
    world = a_cluster(policy).with_node(
        a_node("n1", 4, KIND, island_of=2), a_node("n2", 8, KIND, island_of=4)
    )
    world.submit(a_job("group").wanting(4).with_batch(4).under("tp4")).settle()
    assert world.nodes_of("group") == {"n2"}, "though n1 would be used up"


@EVERY_POLICY
def test_ranks_of_a_group_follow_each_other_within_an_island(policy: str) -> None:
    node = a_node("n", 8, KIND, island_of=4)
    shuffled = tuple(sorted(node.accelerators, key=lambda a: (int(a.id[-1]) % 4, a.id)))
    world = a_cluster(policy).with_node(replace(node, accelerators=shuffled))
    world.submit(a_job("groups").wanting(8).with_batch(8).under("dp2-tp4")).settle()
    known = {a.id: a.island for a in shuffled}
    ranks = [known[unit.accelerators[0]] for unit in world.attempt("groups").placement.units]
    assert ranks in (["0"] * 4 + ["1"] * 4, ["1"] * 4 + ["0"] * 4)
