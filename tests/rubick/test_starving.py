"""No starvation, followed to its end: a stream of jobs that nobody knows the end of, and one that
needs whole nodes.
"""

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from tests.builders import World, a_cluster, a_job, a_node

STARVING = 600.0
COOL_DOWN = 120.0
TICK = 50.0
ENDLESS = 10**9
EACH = 4


class Stream:
    """A cluster that is full of commands, with more of them waiting all the time. How long each
    takes only the test knows.
    """

    def __init__(self, nodes: int, lives: Iterator[tuple[int, float]], **knobs: float) -> None:
        chosen = {"switch_seconds": 1.0, "cool_down_seconds": COOL_DOWN, **knobs}
        policy = Rubick(
            FittedTimes(),
            RubickSettings(starving_seconds=STARVING, **chosen),  # type: ignore[arg-type]
        )
        self.world: World = a_cluster().under(policy)
        self.world.with_node(*(a_node(f"n{i}", EACH) for i in range(nodes)))
        self.lives = lives
        self.numbers = count()
        self.left: dict[str, float] = {}
        self.passed = 0.0
        self.crowd()

    def crowd(self) -> None:
        """Always some more than there is room for."""
        while sum(not self.world.held(name) for name in self.left) < 3:
            name = f"s{next(self.numbers)}"
            accelerators, life = next(self.lives)
            self.left[name] = life
            self.world.submit(a_job(name).running_a_command().wanting(accelerators))
        self.world.settle(60)

    def tick(self) -> None:
        self.world.passes(TICK)
        self.passed += TICK
        for name in list(self.left):
            if self.world.held(name):
                self.left[name] -= TICK
                if self.left[name] <= 0:
                    del self.left[name]
                    self.world.exits(name)
        self.crowd()

    def until(self, name: str, most: float) -> float:
        """After how many seconds the job holds something; fails if it does not for so long."""
        began = self.passed
        while not self.world.held(name):
            assert self.passed - began <= most, "it starves"
            self.tick()
        return self.passed - began


def lives(drawn: list[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """The drawn sizes and lengths, over and over."""
    for number in count():
        yield drawn[number % len(drawn)]


DRAWN = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 4]), st.sampled_from([50.0, 200.0, 1500.0, ENDLESS])),
    min_size=3,
    max_size=12,
)


@pytest.mark.timeout(300)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=DRAWN, nodes=st.integers(1, 3), whole=st.integers(1, 3))
def test_a_job_that_needs_whole_nodes_begins_although_others_come_and_never_tell_their_end(
    drawn: list[tuple[int, float]], nodes: int, whole: int
) -> None:
    stream = Stream(nodes, lives(drawn), displaced_at_most=1)
    stream.tick()
    wanted = EACH * min(whole, nodes)
    ahead = sum(not stream.world.held(name) for name in stream.left)
    stream.world.submit(a_job("big").running_a_command().wanting(wanted)).settle(60)
    a_turn = STARVING + COOL_DOWN + 4 * TICK
    stream.until("big", 2 * STARVING + (ahead + 1) * a_turn)
    assert stream.world.held("big") == wanted


def test_who_was_promised_its_place_is_moved_if_need_be_and_never_put_off() -> None:
    """Not even for one that starved for long; what one of them leaves is kept for that one."""
    world = Stream(2, lives([(4, 1.0)]), displaced_at_most=1).world
    for name in [str(uid) for uid in world.state.jobs]:
        world.exits(name).settle(60)
    promised = [f"p{i}" for i in range(4)]
    for name in promised:
        world.submit(a_job(name).running_a_command().wanting(2).guaranteed())
    world.settle(60)
    assert all(world.held(name) == 2 for name in promised)
    world.submit(a_job("big").running_a_command().wanting(4).guaranteed()).settle(60)
    world.passes(2 * STARVING).settle(60)
    left = dict.fromkeys(promised)
    for node in ("n0", "n1"):
        assert not world.held("big")
        world.submit(a_job(f"after-{node}").running_a_command().wanting(2).guaranteed())
        name = next(name for name in left if world.nodes_of(name) == {node})
        del left[name]
        world.settle(60).passes(TICK).exits(name).settle(60)
    assert world.held("big") == 4
    assert all(world.held(name) == 2 for name in left)
