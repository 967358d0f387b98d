"""After a failure that a node may have caused a job keeps off that node, while it can."""

import pytest

from controlplane.domain.action import StartAttempt
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Outcome
from controlplane.domain.suspicion import FIRST_SECONDS, MOST_SECONDS
from tests.builders import POLICIES, World, a_cluster, a_job, a_node

EVERY_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))
PERHAPS_THE_NODE = (
    ReasonCode.RANK_HUNG,
    ReasonCode.RANK_LOST,
    ReasonCode.COMMUNICATION_FAILED,
)


LACKS_SOMETHING = (
    ReasonCode.START_REFUSED,
    ReasonCode.STORE_NOT_SHARED,
    ReasonCode.CHECKPOINT_FAILED,
)


def ends_on(world: World, node: str, outcome: Outcome, code: ReasonCode | None = None) -> World:
    """The job's units on a node end so."""
    units = [unit.index for unit in world.attempt("job").placement.units if unit.node == node]
    return world.exits("job", outcome, reason=code, units=units)


def starts_again(world: World, passes: float = 300) -> str:
    """The back-off is over and the job starts; what it is told."""
    world.passes(passes)
    actions = world.cycle().decided.actions
    (reason,) = [action.reason for action in actions if isinstance(action, StartAttempt)]
    world.settle()
    return reason.message


def avoided(world: World) -> set[str]:
    return set(world.job("job").avoids(world.now))


def a_pair_of_two_nodes(policy: str, nodes: int) -> World:
    """A job over n1 and n2, which takes two nodes of one accelerator each."""
    world = a_cluster(policy).with_nodes(nodes, 1).submit(a_job().wanting(2)).settle()
    assert world.nodes_of("job") == {"n1", "n2"}
    return world


@EVERY_POLICY
@pytest.mark.parametrize("code", [ReasonCode.RANK_HUNG, ReasonCode.RANK_LOST])
def test_whoever_is_accused_of_its_silence_is_kept_off(policy: str, code: ReasonCode) -> None:
    world = a_pair_of_two_nodes(policy, 3)
    ends_on(world, "n1", Outcome.FAILED, code)
    ends_on(world, "n2", Outcome.LOST)
    assert avoided(world) == {"n2"}
    told = starts_again(world)
    assert world.nodes_of("job") == {"n1", "n3"}
    assert told.endswith(f"; it keeps off n2 (attempt 1: {code.value})")
    assert world.replayed() == world.state


@EVERY_POLICY
@pytest.mark.parametrize("code", LACKS_SOMETHING)
def test_a_node_that_lacks_what_a_rank_needs_is_kept_off_and_no_other(
    policy: str, code: ReasonCode
) -> None:
    world = a_pair_of_two_nodes(policy, 3)
    # The other rank is heard first, and says that it has nobody to train with.
    ends_on(world, "n1", Outcome.FAILED, ReasonCode.RANK_LOST)
    ends_on(world, "n2", Outcome.FAILED, code)
    assert world.code("job") is code
    assert avoided(world) == {"n2"}
    starts_again(world)
    assert world.nodes_of("job") == {"n1", "n3"}
    assert world.replayed() == world.state


def test_a_unit_that_was_only_ended_lacks_nothing() -> None:
    world = a_pair_of_two_nodes("equal-share", 3)
    ends_on(world, "n1", Outcome.FAILED, ReasonCode.START_REFUSED)
    ends_on(world, "n2", Outcome.LOST)
    assert avoided(world) == {"n1"}


@EVERY_POLICY
def test_a_connection_has_two_ends(policy: str) -> None:
    world = a_pair_of_two_nodes(policy, 4)
    ends_on(world, "n1", Outcome.FAILED, ReasonCode.COMMUNICATION_FAILED)
    ends_on(world, "n2", Outcome.LOST)
    starts_again(world)
    assert world.nodes_of("job") == {"n3", "n4"}


def test_a_rank_whose_actor_died_accuses_nobody_but_its_own_node() -> None:
    world = a_pair_of_two_nodes("equal-share", 3)
    ends_on(world, "n2", Outcome.LOST, ReasonCode.RANK_LOST)
    ends_on(world, "n1", Outcome.FAILED, ReasonCode.RANK_LOST)
    assert avoided(world) == {"n2"}


@EVERY_POLICY
@pytest.mark.parametrize("code", PERHAPS_THE_NODE)
def test_without_other_room_the_same_is_taken_and_said(policy: str, code: ReasonCode) -> None:
    world = a_pair_of_two_nodes(policy, 2).fails("job", code)
    told = starts_again(world)
    assert world.nodes_of("job") == {"n1", "n2"}
    assert "n2 (attempt 1: " in told
    assert told.endswith(", but there is no other room for it")


@EVERY_POLICY
def test_what_others_hold_is_no_other_room(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1).submit(a_job()).settle()
    world.with_node(a_node("n2", 1)).submit(a_job("other")).settle()
    assert world.nodes_of("other") == {"n2"}
    world.fails("job", ReasonCode.RANK_LOST)
    starts_again(world)
    assert world.nodes_of("job") == {"n1"}
    assert world.nodes_of("other") == {"n2"}


@pytest.mark.parametrize("code", [ReasonCode.RANK_FAILED, ReasonCode.OUT_OF_MEMORY, None])
def test_what_a_node_has_not_caused_is_not_laid_to_it(code: ReasonCode | None) -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job().wanting(1).under("dp1", "dp1-gc"))
    world.settle().exits("job", Outcome.FAILED, reason=code)
    assert avoided(world) == set()


def test_a_job_rather_stays_small_than_grow_onto_the_node_until_its_time_is_over() -> None:
    world = a_cluster().with_nodes(2, 2).submit(a_job().wanting(1, 4)).settle()
    ends_on(world, "n1", Outcome.FAILED, ReasonCode.RANK_HUNG)
    ends_on(world, "n2", Outcome.LOST)
    starts_again(world)
    assert (world.nodes_of("job"), world.held("job")) == ({"n1"}, 2)
    world.passes(FIRST_SECONDS).settle()
    assert (world.nodes_of("job"), world.held("job")) == ({"n1", "n2"}, 4)


def test_a_node_is_kept_off_twice_as_long_each_time() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().retrying(99)).settle()
    waits = []
    for _ in range(10):
        world.fails("job", ReasonCode.RANK_HUNG)
        (only,) = world.job("job").suspicions
        waits.append((only.until - world.now) // 10**9)
        starts_again(world)
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == MOST_SECONDS
    assert world.replayed() == world.state


def test_a_place_that_is_under_suspicion_since_is_not_gone_back_to() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job().retrying(9)).settle()
    world.fails("job", ReasonCode.RANK_HUNG)
    starts_again(world, 10)
    world.fails("job", ReasonCode.RANK_FAILED)
    assert world.job("job").next_placement is not None
    world.with_node(a_node("n2", 1))
    starts_again(world, 10)
    assert world.nodes_of("job") == {"n2"}
