"""The search beside the loop in virtual time: at stated instants, and the same every time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.event import Event, ProposalFound
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.policy import Decision, Optimality
from controlplane.domain.proposal import Proposal, ProposalUse, Verdict
from controlplane.domain.refusal import refusal_after
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.engine.loop import CycleReport
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from simulator.run import Result, simulate
from simulator.scenario import Arrival, Costs, Scenario
from simulator.searching import SEARCH_TAKES_SECONDS, SEARCHED_EVERY_SECONDS, SearchBeside
from tests.builders import World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job

TIMES = Scaling()
KNOBS = RubickSettings(
    switch_seconds=1.0,
    cool_down_seconds=10.0,
    attempts=0,
    search_beside_nodes=1000,
    search_beside_gain=0.001,
)


class Watched(Rubick):
    """Remembers when it was searched, and what was made of it."""

    def __init__(self, settings: RubickSettings) -> None:
        super().__init__(lambda _: TIMES, settings)
        self.searched: list[Instant] = []
        self.used: list[tuple[Instant, Proposal, ProposalUse]] = []

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        decision = super().__call__(snapshot)
        if decision.proposal is not None and snapshot.proposal is not None:
            self.used.append((snapshot.at, snapshot.proposal, decision.proposal))
        return decision

    def search(
        self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
    ) -> Proposal | None:
        self.searched.append(snapshot.at)
        return super().search(snapshot, made_of, stopped)


def crowded() -> Scenario:
    """Long jobs first, then short ones that find no room at once."""
    jobs = [(f"long-{i}", 9_000, 0.0) for i in range(2)]
    jobs += [(f"short-{i}", 300 * (i + 1), 120.0 + 400.0 * i) for i in range(4)]
    arrivals = tuple(
        Arrival(Instant(seconds(at)), a_known_job(name, 4, steps).job) for name, steps, at in jobs
    )
    nodes = (a_node("n0", 4, "gpu"), a_node("n1", 4, "gpu"))
    return Scenario(1, nodes, arrivals, costs=Costs.of_a_switch(1.0), times=TIMES)


def played(settings: RubickSettings) -> tuple[Result, Watched]:
    policy = Watched(settings)
    result = simulate(
        crowded(), policy="watched", horizon=seconds(12 * 3600), policies={"watched": policy}
    )
    assert result.refused == ()
    assert len(result.completion_seconds()) == 6
    return result, policy


def test_it_is_played_equally_and_what_it_finds_enters_after_the_stated_while() -> None:
    (first, policy), (again, other) = played(KNOBS), played(KNOBS)
    assert first.decisions_hash == again.decisions_hash
    assert policy.used == other.used
    assert Verdict.TAKEN in {use.verdict for _, _, use in policy.used}
    entered: dict[SequenceNumber, tuple[Instant, Proposal]] = {}
    for at, proposal, _ in policy.used:
        entered.setdefault(proposal.made_of, (at, proposal))
    for at, proposal in entered.values():
        assert proposal.made_at in policy.searched
        assert at >= after(proposal.made_at, seconds(SEARCH_TAKES_SECONDS))
    gaps = [b - a for a, b in zip(policy.searched, policy.searched[1:], strict=False)]
    assert all(gap >= seconds(SEARCHED_EVERY_SECONDS) for gap in gaps)


def test_where_it_is_off_nothing_is_searched() -> None:
    off, policy = played(replace(KNOBS, search_beside_nodes=0))
    assert policy.searched == []
    assert off.decisions_hash != played(KNOBS)[0].decisions_hash


@dataclass
class Beside:
    """What it is told of, and what it makes come in."""

    world: World
    came: list[tuple[Instant, Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.searches = SearchBeside(
            self.world.policies,
            lambda: self.world.now,
            lambda at, what: self.came.append((at, what)),
        )

    def decided(self) -> None:
        outcome = self.world.cycle()
        self.searches.look(CycleReport(self.world.state, (), outcome))


def test_only_so_often_and_only_where_the_round_may_be_too_low() -> None:
    world = a_cluster().under(Watched(KNOBS)).with_node(a_node("n0", 4, "gpu"))
    beside = Beside(world)
    beside.decided()
    assert beside.came == [], "nothing can be better than a round without jobs"
    world.submit(a_known_job("long", 4, 90_000)).settle().passes(60)
    world.submit(a_known_job("short", 4, 500))
    beside.decided()
    ((at, what),) = beside.came
    assert at == after(world.now, seconds(SEARCH_TAKES_SECONDS))
    assert isinstance(what, ProposalFound)
    world.passes(SEARCHED_EVERY_SECONDS - 1)
    beside.decided()
    assert len(beside.came) == 1
    world.passes(1)
    beside.decided()
    assert len(beside.came) == 2


def test_a_round_of_which_nothing_was_carried_out_is_not_searched() -> None:
    world = a_cluster().under(Watched(KNOBS)).with_node(a_node("n0", 4, "gpu"))
    world.submit(a_known_job("long", 4, 90_000)).settle().passes(60)
    world.submit(a_known_job("short", 4, 500))
    beside, outcome = Beside(world), world.cycle()
    refused = replace(outcome, refused=("the whole decision",))
    beside.searches.look(CycleReport(world.state, (), refused))
    assert beside.came == []
    beside.searches.look(CycleReport(world.state, (), outcome))
    assert len(beside.came) == 1


def test_nothing_is_searched_for_a_job_that_is_set_aside() -> None:
    class Notes(Watched):
        """Remembers about which jobs it was asked."""

        asked: tuple[str, ...] = ()

        def search(
            self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
        ) -> Proposal | None:
            self.asked = tuple(snapshot.jobs)
            return super().search(snapshot, made_of, stopped)

        def wants_search(self, knobs: Mapping[str, float], optimality: Optimality) -> bool:
            return True

    policy = Notes(KNOBS)
    world = a_cluster().under(policy).with_node(a_node("n0", 4, "gpu"))
    world.submit(a_known_job("odd"), a_known_job("good"))
    world.state.jobs[JobUid("odd")] = replace(
        world.job("odd"), refusal=refusal_after(None, "wrong", world.now)
    )
    outcome = replace(world.cycle(usable=False), optimality=Optimality(1.0, 2.0, {}))
    Beside(world).searches.look(CycleReport(world.state, (), outcome))
    assert policy.asked == ("good",)
