"""A checkpoint that could not be made is told until a later one is."""

from controlplane.domain.clock import seconds
from controlplane.domain.event import CheckpointMissed
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import MissedCheckpoint, Outcome
from controlplane.engine.hearsay import is_worth_storing
from controlplane.wire.status import conditions
from tests.builders import World, a_cluster, a_job

FULL = Reason(ReasonCode.CHECKPOINT_STORE_FULL, "no room")


def a_job_that_trains() -> World:
    world = a_cluster().with_nodes(1, 1).submit(a_job()).settle()
    return world.trains("job", 45, checkpoint_step=20)


def misses(world: World, step: int, node: str = "n1") -> World:
    number = world.attempt("job").number
    return world.tell(CheckpointMissed(JobUid("job"), number, step, FULL, NodeId(node)))


def gap(world: World) -> MissedCheckpoint | None:
    """The gap that is open."""
    known = world.job("job").missed
    return known if known is not None and known.until is None else None


def condition(world: World) -> tuple[str, str, str, int]:
    """What people see: status, reason, sentence, and since when."""
    told = {each.type: each for each in conditions(world.job("job"))}["CheckpointMissed"]
    return told.status, told.reason, told.message, told.last_transition_time.seconds


def test_a_gap_is_told_until_a_later_checkpoint_is_committed() -> None:
    world = a_job_that_trains()
    submitted = world.now // seconds(1)
    assert condition(world) == ("False", "CheckpointNotMissed", "", submitted)
    misses(world.passes(5), 40)
    misses(world.passes(5), 60)
    says = "no checkpoint of step 60: no room"
    assert condition(world) == ("True", "CheckpointStoreFull", says, submitted + 5)
    world.passes(5).trains("job", 70, checkpoint_step=20)
    assert gap(world)
    world.passes(5).trains("job", 85, checkpoint_step=80)
    assert condition(world) == ("False", "CheckpointNotMissed", "", submitted + 20)
    misses(world.passes(5), 100)
    assert condition(world)[3] == submitted + 25
    assert world.replayed() == world.state


def test_what_was_committed_before_it_was_heard_is_no_gap() -> None:
    world = a_job_that_trains().trains("job", 65, checkpoint_step=60)
    assert gap(misses(world, 40)) is None


def test_what_the_next_attempt_goes_on_from_is_no_new_checkpoint() -> None:
    world = misses(a_job_that_trains(), 40).fails("job", ReasonCode.RANK_FAILED)
    world.passes(5).cycle()
    world.all_up("job").trains("job", 21, checkpoint_step=20)
    assert gap(world)
    world.trains("job", 31, checkpoint_step=30)
    assert gap(world) is None


def test_an_attempt_that_went_on_from_a_later_one_has_no_gap() -> None:
    world = misses(a_job_that_trains(), 40).fails("job", ReasonCode.RANK_FAILED)
    world.passes(5).cycle()
    world.all_up("job").trains("job", 61, checkpoint_step=60)
    assert gap(world) is None


def test_the_last_save_of_an_attempt_ends_the_gap() -> None:
    world = misses(a_job_that_trains(), 40)
    assert gap(world.exits("job", Outcome.SUCCEEDED, step=100)) is None


def test_only_the_node_of_the_present_attempt_is_believed() -> None:
    world = a_job_that_trains()
    earlier = CheckpointMissed(JobUid("job"), world.attempt("job").number, 40, FULL, NodeId("n1"))
    assert gap(misses(world, 40, node="n2")) is None
    assert is_worth_storing(world.state.jobs, earlier)
    world.fails("job").passes(5).settle()
    assert not is_worth_storing(world.state.jobs, earlier)
    assert gap(world.tell(earlier)) is None
