"""Running jobs try plans where knowing is worth it, within what they may lose, and go back."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.domain.action import ChangePlan
from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, load
from controlplane.domain.event import ModelFitted, PlanObserved
from controlplane.domain.ids import JobUid
from controlplane.domain.job import AcceleratorRequest, JobSpec, ServiceClass
from controlplane.domain.model_type import type_named
from controlplane.domain.reason import ReasonCode
from controlplane.engine import switches
from controlplane.engine.state import ClusterState
from controlplane.placing.shares import shares_of
from controlplane.rubick.configurations import Configurations, Shares
from controlplane.rubick.fits import prior_of
from controlplane.rubick.fitted import FittedTimes
from controlplane.rubick.learning import learn, lessons
from controlplane.rubick.parameters import INDEX
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.tries import trying
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node

MODEL = "gpt2-small"
GPT2 = '{"spec": {"model": {"name": "gpt2", "preset": "small"}}}'
SPEC = replace(
    a_job("a").job.spec,
    accelerators=AcceleratorRequest(1, 4),
    global_batch_size=16,
    model_type=f"{MODEL} fp32 batch 16x128",
    any_plan=True,
    steps=200_000,
    manifest_json=GPT2,
)
KNOBS = RubickSettings(
    switch_seconds=1.0, cool_down_seconds=10.0, try_plans_at_most=3, try_least_worth=1.0
)


def job(name: str = "a", spec: JobSpec = SPEC) -> JobBuilder:
    builder = a_job(name)
    return JobBuilder(replace(builder.job, spec=spec))


def cluster(knobs: RubickSettings = KNOBS, *nodes: int) -> World:
    world = a_cluster().under(Rubick(FittedTimes(), knobs))
    for number, count in enumerate(nodes or (4,)):
        world.with_node(a_node(f"n{number}", count, "cpu"))
    return world


def tells(world: World, name: str, seconds: float) -> World:
    """The job's ranks tell what a step takes where they are; what can be learnt is learnt."""
    record = world.job(name)
    attempt = record.attempt
    assert attempt is not None
    place = attempt.placement
    row = PlanRow(
        Asked("", place.accelerator_count, 16, 128, "fp32"),
        str(place.plan),
        Status.MEASURED,
        "+".join(map(str, shares_of(place))),
        steps=20,
        iteration=seconds,
        machine=Machine("cpu", 1, "2", "", "", "", "0"),
    )
    step = max(record.progress.step, attempt.observed_step) + 20
    world.trains(name, step, step_seconds=seconds)
    told = PlanObserved(JobUid(name), attempt.number, step, row, place.units[0].node)
    world.tell(told)
    for lesson in lessons(world.state.observations.values(), world.state.fits):
        found = learn(lesson)
        if found.fit is not None:
            world.tell(ModelFitted(found.fit))
    return world


def tried(world: World) -> list[ChangePlan]:
    """What is ordered now to learn from it."""
    actions = world.cycle().decided.actions
    return [
        action
        for action in actions
        if isinstance(action, ChangePlan) and action.reason.code is ReasonCode.TRIES_PLAN
    ]


def a_running_world(knobs: RubickSettings = KNOBS, spec: JobSpec = SPEC) -> World:
    """A job that has told what its first plan takes, and been left in peace for long enough."""
    world = cluster(knobs).submit(job("a", spec)).settle()
    world.passes(1)
    tells(world, "a", 0.2)
    return world.passes(20)


def test_a_long_job_tries_another_plan_and_says_why() -> None:
    world = a_running_world()
    before = world.attempt("a").placement
    (action,) = tried(world)
    assert action.plan != before.plan
    assert "predictions rest on 1 measurement" in action.reason.message
    assert "1 job of its type" in action.reason.message
    after = world.takes_up("a", step=30).attempt("a").placement
    kept = {unit.place for unit in before.units}
    assert kept <= {unit.place for unit in after.units}, "it goes on where it is"
    assert world.job("a").tries == 1
    assert trying(world.job("a")) is not None


def test_nothing_is_tried_unless_it_is_asked_for() -> None:
    assert RubickSettings().try_plans_at_most == 0
    world = a_running_world(replace(KNOBS, try_plans_at_most=0))
    assert tried(world) == []


def test_it_stays_until_its_steps_were_told_and_goes_back_if_they_are_slower() -> None:
    world = a_running_world()
    first = world.attempt("a").placement
    tried(world)
    world.takes_up("a", step=30).passes(60)
    assert world.cycle().decided.actions == ()
    tells(world, "a", 5.0)
    back = [action for action in world.cycle().decided.actions if isinstance(action, ChangePlan)]
    assert [action.plan for action in back] == [first.plan]
    assert back[0].reason.code is not ReasonCode.TRIES_PLAN
    place = world.takes_up("a", step=60).attempt("a").placement
    assert {unit.place for unit in place.units} == {unit.place for unit in first.units}


def test_it_is_not_waited_for_for_ever_if_nothing_is_told() -> None:
    world = a_running_world()
    first = world.attempt("a").placement
    tried(world)
    world.takes_up("a", step=30).passes(600)
    world.trains("a", 30 + 59, step_seconds=5.0)
    assert world.cycle().decided.actions == ()
    world.trains("a", 30 + 60, step_seconds=5.0)
    world.cycle()
    assert world.attempt("a").plan_change is None or world.attempt("a").placement.plan == first.plan


SURPRISES = {
    "links": {"intra_bytes_per_second": -4.5, "launch_more_tensor": -1.0},
    "replicas": {"launch_more_replicated": 3.4, "launch_more_tensor": -2.3},
    "host": {
        "launch_seconds_per_block": 1.5,
        "launch_more_replicated": 2.5,
        "launch_more_accumulated": -1.0,
    },
}
"""How far hardware is from what is expected of it: parameters, by factors of e."""


def lived(surprise: Mapping[str, float], tries: int) -> tuple[float, float, float]:
    """Seconds of a step of the plan that a job begins with, of that which it has in the end, and of
    the best one, where the hardware is not as expected.
    """
    known = type_named(SPEC.model_type)
    assert known is not None
    prior = prior_of(known, "cpu", None)
    logs = prior.log_parameters.copy()
    for name, factor in surprise.items():
        logs[INDEX[name]] += factor
    truth = replace(prior, log_parameters=logs)

    def true_seconds(plan: ExecutionPlan, shares: Shares) -> float:
        return float(truth.seconds(Configurations.of([plan], [shares], 16))[0])

    world = cluster(replace(KNOBS, try_plans_at_most=tries)).submit(job("a")).settle()
    taken: list[float] = []
    for _ in range(10):
        place = world.attempt("a").placement
        taken.append(true_seconds(place.plan, shares_of(place)))
        tells(world.passes(15), "a", taken[-1])
        world.passes(15).cycle()
        if world.attempt("a").plan_change is not None:
            world.takes_up("a", step=world.job("a").progress.step)
    ways = FittedTimes()(world.state.snapshot(world.now)).ways(SPEC, "cpu")
    best = min(true_seconds(way.plan, way.shares) for way in ways)
    return taken[0], taken[-1], best


@pytest.mark.parametrize("surprise", SURPRISES.values(), ids=SURPRISES)
def test_where_hardware_is_not_as_expected_it_ends_up_with_a_good_plan(
    surprise: Mapping[str, float],
) -> None:
    first, last, best = lived(surprise, tries=3)
    assert last < 1.05 * best < 0.5 * first
    _, without, _ = lived(surprise, tries=0)
    assert without > 1.9 * last


@pytest.mark.parametrize("kept", [1, 16])
def test_no_more_is_tried_than_may_be(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many changes came since: only the last ones are remembered."""
    monkeypatch.setattr(switches, "SWITCHES_KEPT", kept)
    world = a_running_world(replace(KNOBS, try_least_worth=0.0, try_share=1.0))
    seen: set[object] = set()
    for _ in range(12):
        for action in tried(world):
            assert action.plan not in seen
            seen.add(action.plan)
        if world.attempt("a").plan_change is not None:
            world.takes_up("a", step=world.job("a").progress.step)
        tells(world.passes(15), "a", 0.2)
        world.passes(15)
    assert world.job("a").tries == KNOBS.try_plans_at_most == len(seen)
    assert world.replayed() == world.state


@pytest.mark.parametrize(
    "knobs",
    [
        replace(KNOBS, try_share=1e-9),
        replace(KNOBS, try_least_worth=1000.0, switch_seconds=60.0),
        replace(KNOBS, cool_down_seconds=3600.0),
        replace(KNOBS, changes_at_most=1),
    ],
    ids=["budget", "worth", "cool-down", "changes"],
)
def test_it_keeps_to_what_it_may(knobs: RubickSettings) -> None:
    assert tried(a_running_world(knobs)) == []


def test_a_job_that_is_nearly_done_tries_nothing() -> None:
    world = a_running_world(spec=replace(SPEC, steps=60))
    assert tried(world) == []


def test_a_guaranteed_job_tries_nothing_that_may_break_its_promise() -> None:
    spec = replace(
        SPEC,
        service_class=ServiceClass.GUARANTEED,
        accelerators=replace(SPEC.accelerators, requested=4),
    )
    world = a_running_world(replace(KNOBS, try_share=1.0, try_least_worth=0.0), spec)
    for action in tried(world):
        times = FittedTimes()(world.state.snapshot(world.now))
        shares = (len(action.units) or world.held("a"),)
        way = times.way(SPEC, "cpu", action.plan, shares)
        best = max(
            each.steps_per_second for each in times.ways(SPEC, "cpu") if each.accelerators == 4
        )
        assert way is not None
        assert 1 / way.seconds_upper >= best
    plain = a_running_world(replace(KNOBS, try_share=1.0, try_least_worth=0.0))
    assert tried(plain), "the same job without a promise does"


def test_only_one_job_of_a_type_tries_at_a_time() -> None:
    world = cluster(KNOBS, 4, 4).submit(job("a"), job("b")).settle()
    world.passes(1)
    tells(world, "a", 0.2)
    tells(world, "b", 0.2)
    world.passes(20)
    (action,) = tried(world)
    assert tried(world) == [], "while it is on its way"
    world.takes_up(action.uid, step=30).passes(15)
    assert tried(world) == [], "while it tries"
    other = JobUid({"a": "b", "b": "a"}[action.uid])
    assert world.job(other).tries == 0


def test_people_are_told_what_is_tried_what_not_and_why() -> None:
    policy = Rubick(FittedTimes(), KNOBS)
    world = a_running_world()
    snapshot = world.state.snapshot(world.now)
    told = " ".join(policy.explanation(snapshot, JobUid("a")))
    assert "It is to try" in told
    tight = Rubick(FittedTimes(), replace(KNOBS, try_least_worth=1000.0))
    refused = " ".join(tight.explanation(snapshot, JobUid("a")))
    assert "It does not try" in refused
    assert "which is not worth it" in refused
    off = Rubick(FittedTimes(), replace(KNOBS, try_plans_at_most=0))
    assert "try" not in " ".join(off.explanation(snapshot, JobUid("a")))
    tried(world)
    world.takes_up("a", step=30)
    world.passes(60)
    now = " ".join(policy.explanation(world.state.snapshot(world.now), JobUid("a")))
    assert "but it tries what it has, and stays until that was learnt from." in now
    assert "to learn what its steps take; it stays if that is better, and else goes back" in now


def test_a_try_survives_the_log_and_the_checkpoint() -> None:
    world = a_running_world()
    tried(world)
    world.takes_up("a", step=30)
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    nodes=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3),
    story=st.lists(
        st.tuples(
            st.sampled_from(["submit", "guaranteed", "tell", "tell", "wait", "end"]),
            st.integers(0, 5),
            st.floats(0.01, 3.0),
        ),
        min_size=4,
        max_size=14,
    ),
)
def test_whatever_is_told_promises_and_capacity_are_kept(
    nodes: list[int], story: list[tuple[str, int, float]]
) -> None:
    policy = Rubick(FittedTimes(), replace(KNOBS, try_least_worth=0.0, try_share=1.0))
    world = a_cluster().under(policy)
    for number, count in enumerate(nodes):
        world.with_node(a_node(f"n{number}", count, "cpu"))
    names: list[str] = []
    for what, which, seconds in story:
        if what in ("submit", "guaranteed"):
            name = f"j{len(names)}"
            promised = ServiceClass.GUARANTEED if what == "guaranteed" else SPEC.service_class
            world.submit(job(name, replace(SPEC, service_class=promised)))
            names.append(name)
        running = [
            name
            for name in names
            if (record := world.state.jobs.get(JobUid(name))) is not None
            and record.attempt is not None
            and record.attempt.trained
            and record.attempt.plan_change is None
        ]
        if running and what == "tell":
            tells(world, running[which % len(running)], seconds)
        elif running and what == "end":
            world.exits(running[which % len(running)])
        # Every cycle fails here that breaks an invariant.
        world.passes(7.0 * (which + 1)).settle(6)
        snapshot = world.state.snapshot(world.now)
        decision = policy(snapshot)
        assert list(policy.violations(snapshot, decision)) == []
        assert policy(snapshot) == decision
        assert all(record.tries <= 3 for record in snapshot.jobs.values())
    assert world.state.last_sequence > 0
    assert world.now > Instant(0)
