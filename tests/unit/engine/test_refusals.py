"""A job about which a policy is wrong stands still; the others go on as if it were not there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest

from controlplane.baselines import BASELINES
from controlplane.baselines.equal_share import equal_share
from controlplane.domain.action import StopAttempt
from controlplane.domain.event import JobUpdated, PolicyChanged, ProposalFound
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Optimality, Violation
from controlplane.domain.proposal import Verdict
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.refusal import FIRST_SECONDS, MOST_SECONDS, refusal_after
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.engine.refusals import asked_about, set_aside
from controlplane.engine.trial import DifferenceKind, tried
from controlplane.rubick.invariants import violations
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from headrace.api.plan import ExecutionPlan
from tests.builders import (
    NOTHING_KNOWN,
    POLICIES,
    JobBuilder,
    World,
    a_cluster,
    a_job,
    a_node,
    started,
)
from tests.rubick.worlds import Scaling, a_known_job

KNOBS = RubickSettings(switch_seconds=1.0, cool_down_seconds=10.0)
DISPLACED = Reason(ReasonCode.PREEMPTED, "makes room for default/b, which needs it less long")


class Blames(Rubick):
    """Rubick, where one rule is always broken for some jobs."""

    def __init__(self, *names: str, knobs: RubickSettings = KNOBS) -> None:
        super().__init__(lambda _: Scaling(), knobs)
        self._names = names
        self.rounds = 0

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        self.rounds += 1
        return super().__call__(snapshot)

    def apart(self) -> "Blames":
        return Blames(*self._names, knobs=self.settings)

    def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
        yield from super().violations(snapshot, decision)
        for name in self._names:
            record = snapshot.jobs.get(JobUid(name))
            target = decision.targets.get(JobUid(name))
            if record is not None and target is not None and record.attempt is None:
                yield Violation(f"{name}: a rule is broken", (JobUid(name),))


def refusing(world: World) -> World:
    """The same world, where decisions may be refused."""
    world.cycle = partial(World.cycle, world, usable=False)  # type: ignore[method-assign]
    return world


def four(policy: Blames) -> World:
    return refusing(a_cluster().under(policy).with_node(a_node("n0", 4, "gpu")))


def a_hog(name: str = "odd") -> JobBuilder:
    return a_known_job(name, 4, 90_000).with_priority(5)


def test_nobody_makes_room_for_a_job_that_is_refused() -> None:
    world = four(Blames("odd")).submit(a_known_job("good", 4, 90_000)).settle().passes(60)
    assert world.held("good") == 4
    world.submit(a_hog())
    for _ in range(5):
        world.settle()
        assert (world.held("good"), world.held("odd")) == (4, 0)
        world.passes(600)
    assert world.job("good").attempts_made == 1
    assert world.code("odd") is ReasonCode.POLICY_REFUSED
    assert world.replayed() == world.state


def test_behind_many_that_are_refused_one_after_the_other_the_next_one_starts() -> None:
    """Each of them takes all there is, so that only one is seen to be wrong at a time."""
    odd = [f"odd-{i}" for i in range(7)]
    world = four(Blames(*odd)).submit(*map(a_hog, odd), a_known_job("good", 4, 90_000))
    for _ in range(4):
        world.passes(5).cycle()
    assert world.held("good") == 4
    assert world.job("good").attempts_made == 1


def test_a_mistake_that_lasts_costs_one_decision_more_a_minute_and_then_less_often() -> None:
    policy = Blames("odd")
    world = four(policy).submit(a_known_job("good", 4, 90_000)).settle().passes(60)
    policy.rounds = 0
    world.submit(a_hog()).cycle()
    assert policy.rounds == 2
    for _ in range(11):
        world.passes(5).cycle()
    assert policy.rounds == 13
    for _ in range(360):
        world.passes(5).cycle()
    # After 60, 120, 240, 480 and then each 600 seconds.
    assert policy.rounds == 13 + 360 + 6 - 1


def test_a_job_that_is_refused_again_soon_is_set_aside_for_longer_and_never_for_long() -> None:
    world = a_cluster()
    first = refusal_after(None, "wrong", world.now)
    assert first.until - first.at == FIRST_SECONDS * 1e9
    second = refusal_after(first, "wrong", first.until)
    assert second.until - second.at == 2 * FIRST_SECONDS * 1e9
    last = second
    for _ in range(9):
        last = refusal_after(last, "wrong", last.until)
    assert last.until - last.at == MOST_SECONDS * 1e9
    much_later = world.passes(2 * MOST_SECONDS + 1e5).now
    assert refusal_after(last, "wrong", much_later).until - much_later == FIRST_SECONDS * 1e9


@pytest.mark.parametrize("what", ["spec", "settings"])
def test_who_is_set_aside_is_decided_about_once_something_about_it_changes(what: str) -> None:
    world = four(Blames("odd")).submit(a_hog())
    assert set(world.cycle().refused_jobs) == {"odd"}
    assert world.cycle().refused_jobs == {"odd": "odd: a rule is broken"}
    world.policies["tried"] = Blames()
    world.cycle()
    assert world.held("odd") == 0
    if what == "spec":
        world.tell(JobUpdated(JobBuilder(world.job("odd").job).generation(2).job))
    else:
        world.tell(PolicyChanged(world.state.settings))
    outcome = world.cycle()
    assert outcome.refused_jobs == {}
    assert world.held("odd") == 4
    assert world.job("odd").refusal is None


def test_who_is_set_aside_is_decided_about_where_other_settings_are_tried() -> None:
    world = four(Blames("odd")).submit(a_hog())
    assert set(world.cycle().refused_jobs) == {"odd"}
    policies = {**world.policies, "other": equal_share}
    other = replace(world.state.settings, policy="other")
    (found,) = tried(world.state, world.now, policies, other).differences
    assert (found.record.uid, found.kind) == ("odd", DifferenceKind.STARTS)
    same = replace(world.state.settings, period_seconds=7.0)
    assert tried(world.state, world.now, policies, same).differences == ()


def test_of_a_proposal_whose_job_is_refused_nothing_is_told_or_carried_out() -> None:
    knobs = replace(KNOBS, attempts=0, search_beside_nodes=1000, search_beside_gain=0.001)
    world = a_cluster().under(Rubick(lambda _: Scaling(), knobs))
    world.with_node(a_node("n0", 4, "gpu"), a_node("n1", 4, "gpu"))
    world.submit(*(a_known_job(name, most=4, steps=90_000) for name in ("long-a", "long-b")))
    world.settle().passes(60).submit(a_known_job("short", most=4, steps=500))
    policy = Blames("short", knobs=knobs)
    refusing(world.under(policy))

    def searched() -> object:
        asked = asked_about(world.state.snapshot(world.now))
        return policy.apart().search(asked, world.state.last_sequence, lambda: False)

    found = searched()
    assert found is not None
    outcome = world.tell(ProposalFound(found)).cycle()  # type: ignore[arg-type]
    assert set(outcome.refused_jobs) == {"short"}
    assert outcome.decided.actions == ()
    assert outcome.proposal is not None
    assert outcome.proposal.verdict is not Verdict.TAKEN
    assert (world.held("long-a"), world.held("long-b")) == (4, 4)
    # Nor is it proposed again while nobody would carry it out.
    assert searched() is None


# -- where to decide again does not help ----------------------------------------------


class Checked:
    """A policy that looks at its own targets."""

    def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
        return violations(snapshot, decision, NOTHING_KNOWN, cool_down_seconds=0.0)


class Stubborn(Checked):
    """Stops a for the sake of b, whose target is wrong; and does so if it is not asked about b."""

    def __init__(
        self, wrong: Callable[[Placement], Placement], others: Sequence[str] = (), **measure: object
    ) -> None:
        self._wrong = wrong
        self._others = others
        self._measure = measure

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        record = snapshot.jobs[JobUid("a")]
        assert record.attempt is not None
        place = record.attempt.placement
        targets = {JobUid("b"): self._wrong(place)}
        targets |= {JobUid(uid): place for uid in self._others}
        reasons = {JobUid("a"): DISPLACED, JobUid("b"): Reason(ReasonCode.STARTED)}
        return Decision(targets, reasons, **self._measure)  # type: ignore[arg-type]


def too_many_ranks(place: Placement) -> Placement:
    return replace(place, plan=ExecutionPlan(data_parallel=7))


def on_n2(place: Placement) -> Placement:
    units = (
        replace(unit, node=NodeId("n2"), accelerators=(AcceleratorId(f"n2-{i}"),))
        for i, unit in enumerate(place.units)
    )
    return replace(place, units=tuple(units))


def one_runs(policy: object) -> World:
    world = a_cluster().with_nodes(2, 2).submit(a_job("a").wanting(2)).settle()
    return world.submit(a_job("b").wanting(2)).under(policy)  # type: ignore[arg-type]


def stopped(world: World) -> list[str]:
    """Who is stopped in a cycle that refuses what was decided about b."""
    outcome = world.cycle(usable=False)
    assert set(outcome.refused_jobs) == {"b"}
    actions = outcome.decided.actions
    return [action.uid for action in actions if isinstance(action, StopAttempt)]


def test_what_was_to_be_left_for_a_job_that_is_refused_is_kept() -> None:
    best = Optimality(1.0, 1.0, {})
    world = one_runs(Stubborn(too_many_ranks, optimality=best))
    outcome = world.cycle(usable=False)
    assert outcome.refused_jobs.keys() == {"b"}
    assert outcome.decided.actions == ()
    assert world.held("a") == 2
    assert "is refused" in outcome.said[JobUid("a")].message
    assert outcome.optimality is None
    assert stopped(world) == []


def test_what_another_one_takes_is_left_for_it() -> None:
    policy = Stubborn(lambda place: too_many_ranks(on_n2(place)), others=["c"])
    world = one_runs(policy).submit(a_job("c").wanting(2))
    assert stopped(world) == ["a"]


def test_who_must_leave_a_node_leaves_it_though_nobody_comes() -> None:
    world = one_runs(Stubborn(too_many_ranks)).drain("n1")
    assert stopped(world) == ["a"]


def test_quota_that_another_one_takes_is_left_for_it() -> None:
    class Elsewhere(Checked):
        """Stops a, so that c may run on another node within their quota."""

        def __call__(self, snapshot: ClusterSnapshot) -> Decision:
            held = snapshot.jobs[JobUid("a")].attempt
            assert held is not None
            wrong, other = too_many_ranks(held.placement), on_n2(held.placement)
            targets = {JobUid("b"): wrong, JobUid("c"): other}
            return Decision(targets, {JobUid("a"): DISPLACED})

    world = a_cluster().with_nodes(2, 2).with_queue("narrow", quota=2)
    world.submit(a_job("a").wanting(2).in_queue("narrow")).settle()
    assert world.nodes_of("a") == {"n1"}
    world.submit(a_job("b").wanting(2), a_job("c").wanting(2).in_queue("narrow"))
    world.under(Elsewhere())
    assert stopped(world) == ["a"]


# -- what a policy is asked about -----------------------------------------------------


@pytest.mark.parametrize("policy", sorted({*POLICIES, *BASELINES}))
def test_what_a_job_that_is_set_aside_holds_is_given_to_nobody(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 4).with_queue("narrow", quota=3)
    world.submit(a_job("a").wanting(2).in_queue("narrow")).settle()
    world.submit(a_job("b").wanting(2).in_queue("narrow"), a_job("c").wanting(2))
    decides = world.policies[policy]
    snapshot = set_aside(world.state.snapshot(world.now), [JobUid("a")])
    decision = decides(snapshot)
    assert set(decision.targets) == {"c"}
    held = set(world.attempt("a").placement.slots())
    assert held.isdisjoint(decision.targets[JobUid("c")].slots())
    assert decision.reasons[JobUid("b")].code is ReasonCode.QUOTA_EXCEEDED


def test_a_policy_that_cannot_do_without_a_job_is_asked_about_it_again() -> None:
    def needs_b(snapshot: ClusterSnapshot) -> Decision:
        decision = equal_share(snapshot)
        wrong = too_many_ranks(decision.targets[JobUid("b")])
        return replace(decision, targets={**decision.targets, JobUid("b"): wrong})

    world = a_cluster().with_nodes(1, 4).submit(a_job("b")).under(needs_b)
    assert set(world.cycle(usable=False).refused_jobs) == {"b"}
    outcome = world.submit(a_job("a")).cycle(usable=False)
    assert set(outcome.refused_jobs) == {"b"}
    assert started(outcome.decided.actions) == {"a": 1}
