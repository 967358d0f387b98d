"""Wherever a job fails, and whatever for: the retry is on other nodes if those have room for it."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.action import StartAttempt
from controlplane.domain.lifecycle import FINISHED
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Outcome
from tests.builders import POLICIES, World, a_cluster, a_job, a_node
from tests.property.lives import worlds

CODES = st.sampled_from(
    [
        ReasonCode.RANK_HUNG,
        ReasonCode.RANK_LOST,
        ReasonCode.COMMUNICATION_FAILED,
        ReasonCode.RANK_FAILED,
        None,
    ]
)


def the_next_start(world: World) -> StartAttempt:
    world.passes(300)
    actions = world.cycle().decided.actions
    (start,) = [action for action in actions if isinstance(action, StartAttempt)]
    return start


@worlds(few=120)
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    least=st.integers(1, 4),
    more=st.integers(0, 4),
    failures=st.lists(st.tuples(CODES, st.integers(0, 3)), min_size=1, max_size=6),
)
def test_a_retry_is_elsewhere_if_there_is_room(
    policy: str,
    sizes: list[int],
    least: int,
    more: int,
    failures: list[tuple[ReasonCode | None, int]],
) -> None:
    world = a_cluster(policy).with_node(*(a_node(f"n{i}", n) for i, n in enumerate(sizes)))
    least = min(least, sum(sizes))
    # First come, first served gives a job all it can use, so there only one size is its least.
    most = least + more if policy == "equal-share" else least
    world.submit(a_job().wanting(least, most).retrying(99)).settle()
    for code, which in failures:
        units = world.attempt("job").placement.units
        world.exits("job", Outcome.FAILED, reason=code, units=[units[which % len(units)].index])
        if world.job("job").attempt is not None:
            world.exits("job", Outcome.LOST)
        assert world.stage("job") not in FINISHED
        start = the_next_start(world)
        avoided = world.job("job").avoids(world.now)
        elsewhere = sum(n for i, n in enumerate(sizes) if f"n{i}" not in avoided)
        used = start.placement.nodes & avoided
        assert not used or elsewhere < least
        assert ("it keeps off" in start.reason.message) == (bool(avoided) and not used)
        assert ("no other room" in start.reason.message) == bool(used)
        world.settle()
    names = [each.node for each in world.job("job").suspicions]
    assert len(set(names)) == len(names)
    assert world.replayed() == world.state
