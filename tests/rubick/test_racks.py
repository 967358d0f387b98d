"""Rubick with racks: who is displaced for a job that keeps to one, and what is reserved for it."""

from dataclasses import replace

import pytest

from controlplane.domain.ids import NodeId
from controlplane.domain.job import Topology
from controlplane.domain.lifecycle import Stage
from controlplane.domain.policy import Decision
from controlplane.domain.reason import ReasonCode
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.rubick.board import Board, by_rack
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.starving import soonest
from tests.builders import JobBuilder, World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job, plan_on


def world(racks: str, count: int = 8, **changes: float) -> World:
    """Under Rubick, nodes ``n0`` and so on, each in the rack of its letter, ``.`` for none."""
    chosen = {"switch_seconds": 1.0, "cool_down_seconds": 10.0} | changes
    policy = Rubick(lambda _: Scaling(), RubickSettings(**chosen))  # type: ignore[arg-type]
    built = a_cluster().under(policy)
    for i, rack in enumerate(racks):
        built.with_node(a_node(f"n{i}", count, "gpu", rack=rack.strip(".")))
    return built


def on_two(name: str, steps: int = 1000, *, guaranteed: bool = False) -> JobBuilder:
    """A job on two nodes of eight."""
    job = a_known_job(name, most=16, steps=steps, asked=16, guaranteed=guaranteed)
    return job.wanting(16).under(str(plan_on((16,))))


def racks_of(built: World, name: str) -> set[str]:
    return {built.state.racks[node] for node in built.attempt(name).placement.nodes}


def test_a_board_looks_in_one_rack_first_and_in_no_other_where_it_must() -> None:
    names = [NodeId(f"n{i}") for i in range(5)]
    racks = dict(zip(names[:4], "abba", strict=True))
    board = Board({"gpu": dict.fromkeys(names, 8)}, racks)
    assert [node for (_, node), _ in board.find("gpu", (8, 8)) or ()] in (
        ["n0", "n3"],
        ["n1", "n2"],
    )
    assert board.find("gpu", (8, 8, 8), topology=Topology.SAME_RACK) is None
    assert len(board.find("gpu", (8,) * 5) or ()) == 5
    assert board.find_anywhere("gpu", 24, topology=Topology.SAME_RACK) is None
    assert sorted(map(sorted, by_rack(names, racks))) == [["n0", "n3"], ["n1", "n2"], ["n4"]]


def test_who_must_be_in_one_rack_displaces_others_of_one_rack() -> None:
    built = world("aabb")
    # The longest ones are in two racks, and would be the cheapest to put off.
    for i, steps in enumerate([10**6, 1000, 10**6, 10**6]):
        one = a_known_job(f"j{i}", steps=steps, asked=8).wanting(8).under("dp8")
        built.submit(one).settle()
    homes = {f"j{i}": next(iter(racks_of(built, f"j{i}"))) for i in range(4)}
    built.passes(60).submit(on_two("wide", guaranteed=True).in_one_rack()).settle()
    assert built.stage("wide") is Stage.RUNNING
    assert len(racks_of(built, "wide")) == 1
    gone = {name for name in homes if built.job(name).attempt is None}
    assert len(gone) == 2
    assert {homes[name] for name in gone} == racks_of(built, "wide")
    assert homes["j1"] not in racks_of(built, "wide"), "the short one is not put off"


def test_for_who_starves_for_a_rack_nodes_of_one_are_kept_free() -> None:
    names = [NodeId(f"n{i}") for i in range(4)]
    board = Board({"gpu": dict.fromkeys(names, 8)}, dict(zip(names, "abab", strict=True)))
    left = (10.0, 20.0, 40.0, 30.0)
    for number, name in enumerate(names):
        board.take(number, ((("gpu", name), 8),))
    anywhere = soonest(board, left.__getitem__, "gpu", (8, 8), None)
    assert anywhere == (20.0, [("gpu", "n0"), ("gpu", "n1")])
    of_a_rack = soonest(board, left.__getitem__, "gpu", (8, 8), None, Topology.SAME_RACK)
    assert of_a_rack == (30.0, [("gpu", "n1"), ("gpu", "n3")])
    assert soonest(board, left.__getitem__, "gpu", (8, 8, 8), None, Topology.SAME_RACK) is None


def test_who_is_promised_what_no_rack_can_give_is_told_so() -> None:
    built = world("ab")
    asks = a_known_job("a", most=16, asked=16, guaranteed=True)
    built.submit(asks.in_one_rack()).settle()
    why = built.why("a")
    assert why.code is ReasonCode.NO_MATCHING_ACCELERATOR
    assert "that it may use in one rack" in why.message
    assert why.message.endswith("or topology Any in its spec")
    built.with_node(a_node("n2", 8, "gpu", rack="b")).settle()
    assert (built.held("a"), racks_of(built, "a")) == (16, {"b"})


def test_a_place_over_racks_is_not_carried_out_for_one_that_must_keep_to_one() -> None:
    built = world("ab")
    loose = Rubick(lambda _: Scaling(), RubickSettings(switch_seconds=1.0))
    made = on_two("wide").in_one_rack()

    def careless(snapshot: ClusterSnapshot) -> Decision:
        """Decides as if the job might be anywhere."""
        record = snapshot.jobs[made.job.uid]
        request = replace(record.job.spec.accelerators, topology=Topology.ANY)
        job = replace(record.job, spec=replace(record.job.spec, accelerators=request))
        jobs = {made.job.uid: replace(record, job=job)}
        return loose(replace(snapshot, jobs=jobs))

    built.under(careless).submit(made)
    (refused,) = built.cycle(usable=False).refused
    assert refused == "wide must stay in one rack, and would be on n0 (a), n1 (b)"
    built.register(a_node("n1", 8, "gpu"))
    (refused,) = built.cycle(usable=False).refused
    assert refused == "wide must stay in one rack, and would be on n0 (a), n1 (tells none)"


@pytest.mark.parametrize(("racks", "place"), [("abb", {"n1", "n2"}), ("...", {"n0", "n1"})])
def test_few_racks_are_preferred(racks: str, place: set[str]) -> None:
    built = world(racks).submit(on_two("wide")).settle()
    assert built.nodes_of("wide") == place
