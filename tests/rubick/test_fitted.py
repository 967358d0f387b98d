"""Step times of a live cluster: what is asked, what is predicted, and what is learnt meanwhile."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest

from controlplane.domain.any_plan import plans_to_choose
from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, load
from controlplane.domain.event import ModelFitted
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.job import AcceleratorRequest, JobSpec, ServiceClass, Topology
from controlplane.domain.memory import estimated, model_text
from controlplane.domain.model_type import type_named
from controlplane.domain.observation import Observation
from controlplane.domain.reason import ReasonCode
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.domain.step_times import Way
from controlplane.rubick.configurations import Configurations, Shares
from controlplane.rubick.fits import as_model, as_stored, donor_of, prior_of
from controlplane.rubick.fitted import FittedTimes, layouts, node_sizes, split_in_two
from controlplane.rubick.learning import by_type, learn, lessons
from controlplane.rubick.policy import Rubick
from controlplane.rubick.reporting import reports
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.memory import GIB
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node

TYPE = "gpt2-small fp32 batch 16x128"
SPEC = replace(
    a_job("a").job.spec,
    accelerators=AcceleratorRequest(1, 4),
    global_batch_size=16,
    model_type=TYPE,
    any_plan=True,
    steps=100_000,
)
DP2 = ExecutionPlan(2)


def cluster(*nodes: int, kind: str = "cpu") -> World:
    world = a_cluster().under(Rubick(FittedTimes(), RubickSettings(switch_seconds=1.0)))
    for number, count in enumerate(nodes or (2, 2)):
        world.with_node(a_node(f"n{number}", count, kind))
    return world


def snapshot(world: World) -> ClusterSnapshot:
    return world.state.snapshot(world.now)


def job(name: str = "a", spec: JobSpec = SPEC) -> JobBuilder:
    builder = a_job(name)
    return JobBuilder(replace(builder.job, spec=spec))


def model(model_type: str = TYPE, slower: float = 1.0) -> StepTimeModel:
    """One whose accelerators compute so much more slowly than is expected of them."""
    known = type_named(model_type)
    assert known is not None
    prior = prior_of(known, "cpu", None)
    logs = prior.log_parameters.copy()
    logs[0] -= np.log(slower)
    return replace(prior, log_parameters=logs, rows=7)


def a_fit(slower: float = 1.0, rows: int = 7, at: int = 5, model_type: str = TYPE) -> StepTimeFit:
    kept = as_stored(model(model_type, slower), model_type, "cpu", 2.0, Instant(at))
    return replace(kept, rows=rows)


def told(
    plan: str, shares: Shares, at: int, slower: float = 1.0, times: float = 1.0
) -> Observation:
    parsed = ExecutionPlan.parse(plan)
    seconds = model(slower=slower).seconds(Configurations.of([parsed], [shares], 16))
    machine = Machine("cpu", 1, "2", "", "", "", "0")
    row = PlanRow(
        Asked("gpt2-small", sum(shares), 16, 128, "fp32"),
        plan,
        Status.MEASURED,
        placement="+".join(map(str, shares)),
        iteration=float(seconds[0]) * times,
        machine=machine,
    )
    return Observation(JobUid("a"), Attempt(1), at, Instant(at), row)


# -- what is asked and predicted -----------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "nodes", "topology", "found"),
    [
        (2, ((2, 2),), Topology.ANY, {(2,), (1, 1)}),
        (3, ((2, 2),), Topology.ANY, {(2, 1)}),
        (4, ((2, 2),), Topology.ANY, {(2, 2)}),
        (4, ((2, 2),), Topology.SAME_NODE, set()),
        (5, ((2, 2),), Topology.ANY, set()),
        (16, ((8, 4),), Topology.ANY, {(8, 8), (4, 4, 4, 4)}),
        (12, ((8, 1), (4, 3)), Topology.ANY, {(4, 4, 4)}),
    ],
)
def test_accelerators_lie_on_nodes_as_they_are(
    count: int, nodes: tuple[tuple[int, int], ...], topology: Topology, found: set[Shares]
) -> None:
    assert set(layouts(count, nodes, topology)) == found


@pytest.mark.parametrize(
    ("count", "nodes", "topology", "found"),
    [
        (4, ((4, 2),), Topology.ANY, {(2, 2), (3, 1)}),
        (5, ((4, 3),), Topology.ANY, {(3, 2), (4, 1)}),
        (8, ((4, 2),), Topology.ANY, {(4, 4)}),
        (9, ((4, 3),), Topology.ANY, set()),
        (1, ((4, 2),), Topology.ANY, set()),
        (4, ((4, 1),), Topology.ANY, set()),
        (4, ((4, 2),), Topology.SAME_NODE, set()),
        (12, ((8, 1), (4, 3)), Topology.ANY, {(8, 4)}),
        (10, ((8, 1), (4, 3)), Topology.ANY, {(6, 4), (7, 3), (8, 2)}),
    ],
)
def test_accelerators_lie_in_whatever_parts_on_two_nodes(
    count: int, nodes: tuple[tuple[int, int], ...], topology: Topology, found: set[Shares]
) -> None:
    assert set(split_in_two(count, nodes, topology)) == found


def test_replicas_lie_unevenly_where_nothing_else_is_free() -> None:
    """Plans that split the model do not, nor does a command, whose ranks are its own affair."""
    both = replace(SPEC, accelerators=AcceleratorRequest(4, 4))
    world = cluster(4, 4)
    ways = FittedTimes()(snapshot(world)).ways(both, "cpu")
    uneven = next(way for way in ways if way.shares == (3, 1))
    assert uneven.plan.data_parallel == 4
    assert uneven.seconds > min(way.seconds for way in ways if way.shares == (4,))
    split = replace(both, plans=(ExecutionPlan.parse("dp2-tp2"),), any_plan=False)
    assert {way.shares for way in FittedTimes()(snapshot(world)).ways(split, "cpu")} == {
        (4,),
        (2, 2),
    }
    script = replace(both, model_type="", any_plan=False)
    assert (3, 1) not in {w.shares for w in FittedTimes()(snapshot(world)).ways(script, "cpu")}
    # One is left of the one node and two of the other.
    world.submit(a_job("x").running_a_command().wanting(3)).settle()
    world.submit(a_job("y").running_a_command().wanting(2)).settle()
    three = replace(
        SPEC,
        accelerators=AcceleratorRequest(3, 3),
        global_batch_size=48,
        model_type="gpt2-small fp32 batch 48x128",
    )
    world.submit(job("a", three)).settle()
    assert world.held("a") == 3
    assert len(world.nodes_of("a")) == 2


def test_ways_are_those_of_the_jobs_plans_and_sizes_on_such_nodes() -> None:
    world = cluster(2, 2)
    times = FittedTimes()(snapshot(world))
    ways = times.ways(SPEC, "cpu")
    assert {way.shares for way in ways} >= {(1,), (2,), (1, 1), (2, 2)}
    assert all(way.plan.ranks == way.accelerators for way in ways)
    assert not any(way.plan.tensor_parallel > 1 for way in ways if way.shares == (1, 1))
    assert all(0 < way.seconds < way.seconds_upper for way in ways)
    named = replace(SPEC, plans=(DP2,))
    assert {(way.plan, way.shares) for way in times.ways(named, "cpu")} == {
        (DP2, (2,)),
        (DP2, (1, 1)),
    }
    rigid = replace(SPEC, accelerators=AcceleratorRequest(2, 2))
    assert {way.accelerators for way in times.ways(rigid, "cpu")} == {2}


def test_one_way_is_predicted_like_all() -> None:
    times = FittedTimes()(snapshot(cluster()))
    for way in times.ways(SPEC, "cpu")[::20]:
        one = times.way(SPEC, "cpu", way.plan, way.shares)
        assert one is not None
        assert one.seconds == pytest.approx(way.seconds)
    assert times.way(SPEC, "cpu", DP2, (1,)) is None
    assert times.way(SPEC, "cpu", ExecutionPlan.parse("tp2"), (1, 1)) is None


def test_of_a_job_that_shares_nothing_it_is_guessed_that_more_accelerators_help() -> None:
    times = FittedTimes()(snapshot(cluster()))
    script = replace(SPEC, model_type="", any_plan=False)
    ways = times.ways(script, "cpu")
    assert {(str(way.plan), way.shares) for way in ways} == {
        ("dp1", (1,)),
        ("dp2", (2,)),
        ("dp2", (1, 1)),
        ("dp4", (2, 2)),
    }
    assert all(way.seconds_upper == float("inf") for way in ways)
    assert [times.way(script, "cpu", way.plan, way.shares) for way in ways] == list(ways)
    assert times.ways(SPEC, "gpu") == times.ways(script, "gpu") == ()


def test_a_script_gets_all_there_is_and_makes_room_for_a_shorter_one() -> None:
    script = replace(SPEC, model_type="", any_plan=False, plans=(), steps=5000)
    world = cluster(2, 2).submit(job("a", script)).settle()
    assert world.held("a") == 4
    world.trains("a").passes(1000).submit(job("b", replace(script, steps=100))).settle()
    assert world.held("b") >= 1
    world.passes(60).exits("b").passes(60).settle()
    assert world.held("a") == 4


def test_slots_of_a_processor_have_nowhere_to_offload_to() -> None:
    plans = (DP2, ExecutionPlan.parse("dp2-z2-offload"))
    named = replace(SPEC, plans=plans, any_plan=False)
    times = FittedTimes()(snapshot(cluster()))
    assert {str(way.plan) for way in times.ways(named, "cpu")} == {"dp2"}
    on_gpus = FittedTimes()(snapshot(cluster(kind="nvidia-h200"))).ways(named, "nvidia-h200")
    assert "dp2-z2-offload" in {str(way.plan) for way in on_gpus}


def test_of_each_layout_the_fastest_plan_is_found_that_has_room() -> None:
    """However many plans there are, and most have no room: the same as if each was looked at."""
    large = replace(
        SPEC,
        model=model_text("llama", "2-7b", {}, 0, "bf16"),
        model_type="llama-2-7b bf16 batch 16x4096",
        accelerators=AcceleratorRequest(1, 8),
    )
    world = a_cluster().with_node(
        *(a_node(f"n{i}", 4, "nvidia-h200", gib=60, host_gib_each=400) for i in range(2))
    )
    times = FittedTimes()(snapshot(world))
    plans = plans_to_choose(large, 8)
    every = times.ways(replace(large, plans=plans, any_plan=False), "nvidia-h200")
    need = {plan: estimated(large.model, plan, 16) for plan in plans}
    fits = [plan for plan in plans if (it := need[plan]) and it.accelerator_bytes <= 60 * GIB]
    assert 10 < len(fits) < len(plans) / 2, "memory leaves most of them out"
    assert {way.plan for way in every} <= set(fits)
    fastest: dict[Shares, Way] = {}
    for way in every:
        if way.shares not in fastest or way.seconds < fastest[way.shares].seconds:
            fastest[way.shares] = way
    found = {way.shares: way for way in times.ways(large, "nvidia-h200")}
    assert found.keys() == fastest.keys()
    for shares, way in found.items():
        assert way.seconds == pytest.approx(fastest[shares].seconds)


def test_the_same_is_answered_until_something_is_learnt_of_it() -> None:
    world, times = cluster(), FittedTimes()
    before = times(snapshot(world))
    ways = before.ways(SPEC, "cpu")
    assert times(snapshot(world)) is before
    other = a_fit(model_type="vit-tiny fp32 batch 64x17")
    world.tell(ModelFitted(replace(other, accelerator_type="gpu")))
    assert times(snapshot(world)) is not before
    assert times(snapshot(world)).ways(SPEC, "cpu") is ways
    world.tell(ModelFitted(a_fit(slower=10.0)))
    slower = times(snapshot(world)).way(SPEC, "cpu", DP2, (2,))
    known = before.way(SPEC, "cpu", DP2, (2,))
    assert known is not None
    assert slower is not None
    assert slower.seconds > 2 * known.seconds


def test_another_model_on_the_same_accelerators_says_what_to_begin_with() -> None:
    world = cluster().tell(ModelFitted(a_fit(50.0, model_type="vit-tiny fp32 batch 64x17")))
    way = FittedTimes()(snapshot(world)).way(SPEC, "cpu", DP2, (2,))
    untaught = FittedTimes()(snapshot(cluster())).way(SPEC, "cpu", DP2, (2,))
    assert way is not None
    assert untaught is not None
    assert way.seconds > 5 * untaught.seconds


def test_it_is_told_what_predictions_follow_from() -> None:
    def source(*fits: StepTimeFit) -> str:
        world = cluster().tell(*map(ModelFitted, fits))
        return FittedTimes()(snapshot(world)).source(SPEC, "cpu")

    untaught = "No plan of gpt2-small was measured here yet: that is predicted from its sizes"
    assert source() == f"{untaught} and the name of the accelerator, cpu, alone."
    vit = a_fit(model_type="vit-tiny fp32 batch 64x17")
    assert source(vit) == f"{untaught} and from what vit-tiny took here."
    known = "That is predicted from {} of gpt2-small measured here."
    assert source(vit, a_fit()) == known.format("7 plans")
    assert source(a_fit(rows=1)) == known.format("1 plan")
    world = cluster()
    script = replace(SPEC, model_type="", any_plan=False)
    told = FittedTimes()(snapshot(world)).source(script, "cpu")
    assert told == "Nothing is known of what its steps take."


def test_the_policy_explains_from_what_it_predicts() -> None:
    policy = Rubick(FittedTimes(), RubickSettings(switch_seconds=1.0))
    world = a_cluster().under(policy).with_node(a_node("n", 2, "cpu")).submit(job()).settle()
    assert "predicted from its sizes" in " ".join(policy.explanation(snapshot(world), JobUid("a")))
    world.tell(ModelFitted(a_fit()))
    assert "from 7 plans of" in " ".join(policy.explanation(snapshot(world), JobUid("a")))


def test_a_fit_is_the_same_model_after_it_was_stored() -> None:
    known = model(slower=3.0)
    kept = as_stored(known, TYPE, "cpu", 2.0, Instant(5))
    again = as_model(load(dump(kept, StepTimeFit), StepTimeFit))
    assert again is not None
    np.testing.assert_allclose(again.log_parameters, known.log_parameters)
    np.testing.assert_allclose(again.covariance, known.covariance)
    assert (again.sizes, again.rows) == (known.sizes, 7)
    assert as_model(replace(kept, parameters=kept.parameters[1:])) is None


# -- in a cluster --------------------------------------------------------------------------


def test_rubick_runs_a_job_under_a_plan_that_nobody_named() -> None:
    world = cluster(8, kind="nvidia-h200")
    big = replace(
        SPEC,
        model_type="llama-2-7b bf16 batch 16x4096",
        accelerators=AcceleratorRequest(1, 8),
    )
    world.submit(job(spec=big)).settle()
    ways = FittedTimes()(snapshot(world)).ways(big, "nvidia-h200")
    placement = world.attempt("a").placement
    fastest = min((way for way in ways if way.accelerators == 8), key=lambda way: way.seconds)
    assert placement.plan == fastest.plan != ExecutionPlan(8)
    assert placement.accelerator_count == 8


def test_a_job_for_which_no_plan_has_room_is_told_so_and_holds_up_nobody() -> None:
    world = a_cluster().under(Rubick(FittedTimes()))
    small = replace(a_node("n", 1, "nvidia-h200").accelerators[0], memory_bytes=2**30)
    world.with_node(replace(a_node("n", 1, "nvidia-h200"), accelerators=(small,)))
    type_ = "llama-2-7b fp32 batch 16x4096"
    large = replace(SPEC, model=model_text("llama", "2-7b", {}, 0, "fp32"), model_type=type_)
    one = AcceleratorRequest(1, 1)
    world.submit(
        job("large", replace(large, accelerators=one, plans=(ExecutionPlan(1),), any_plan=False)),
        job("small", replace(SPEC, accelerators=one)),
    ).settle()
    told = world.job("large").reason
    assert told is not None
    assert told.code is ReasonCode.DOES_NOT_FIT
    assert world.held("small") == 1


def test_a_guaranteed_job_gets_the_speed_of_what_it_asks_for() -> None:
    world = cluster(2, 2).submit(job()).settle().passes(1000)
    asks = replace(
        SPEC,
        accelerators=AcceleratorRequest(2, 2),
        service_class=ServiceClass.GUARANTEED,
    )
    world.submit(job("b", asks)).settle()
    assert world.held("b") == 2
    assert node_sizes(snapshot(world)) == {"cpu": ((2, 2),)}


# -- what is learnt ------------------------------------------------------------------------

ROWS = [
    told(plan, shares, at, slower=20.0)
    for at, (plan, shares) in enumerate(
        [("dp1", (1,)), ("dp2", (2,)), ("dp2", (1, 1)), ("dp4", (2, 2)), ("dp2-gc", (2,))], 1
    )
]


def test_what_was_never_fitted_is_and_then_predicts_what_it_has_not_seen() -> None:
    (lesson,) = lessons(ROWS, {})
    assert (lesson.model_type, lesson.accelerator_type, lesson.at) == (TYPE, "cpu", 5)
    learnt = learn(lesson)
    assert learnt.fit is not None
    assert (learnt.fit.rows, learnt.fit.at, learnt.outliers) == (5, 5, ())
    assert learnt.error < 0.1 < learnt.error_before
    found = as_model(learnt.fit)
    assert found is not None
    unseen = Configurations.of([ExecutionPlan.parse("dp1-gc")], [(1,)], 16)
    assert found.seconds(unseen)[0] == pytest.approx(model(slower=20.0).seconds(unseen)[0], rel=0.3)
    assert list(lessons(ROWS, {lesson.key: learnt.fit})) == []


def test_many_more_rows_are_news_and_so_is_one_that_surprises() -> None:
    (lesson,) = lessons(ROWS, {})
    fit = learn(lesson).fit
    assert fit is not None
    fits = {lesson.key: fit}
    as_expected = told("dp4-gc", (2, 2), 9, slower=20.0)
    assert list(lessons([*ROWS, as_expected], fits)), "while there are few, any is news"
    known = [
        told(f"dp2{kind}", (2,), 3, slower=20.0)
        for kind in ("-ga2", "-ga4", "-ga8", "-z2", "-z3", "-z2-ga2", "-z2-ga4", "-z2-gc", "-z3-gc")
    ]
    many = {lesson.key: replace(fit, rows=14)}
    assert list(lessons([*ROWS, *known, as_expected], many)) == []
    assert list(lessons([*ROWS, *known, as_expected], {lesson.key: replace(fit, rows=11)}))
    assert list(lessons([*ROWS, told("dp4-gc", (2, 2), 9, slower=20.0, times=9.0)], fits))


def test_a_fit_that_predicts_the_newest_rows_worse_is_not_adopted() -> None:
    knows = a_fit(slower=20.0, rows=1, at=4)
    crowd = [
        told(plan, shares, 2)
        for plan in ("dp2", "dp2-gc", "dp2-ga2", "dp2-z2")
        for shares in ((2,), (1, 1))
    ]
    lesson = replace(next(iter(lessons(ROWS, {}))), told=(*crowd, ROWS[-1]), before=knows)
    learnt = learn(lesson)
    assert learnt.fit is None
    assert learnt.error > learnt.error_before
    few = learn(replace(lesson, told=(*crowd[:4], ROWS[-1])))
    assert few.fit is not None, "with few rows all of them are learnt from"


def test_with_few_rows_each_of_them_is_learnt_from() -> None:
    """One was told again, slower than before, and another one is new: both are in the next fit."""
    first = told("dp4", (2, 2), 1, slower=20.0)
    fit = learn(next(iter(lessons([first], {})))).fit
    assert fit is not None
    again = told("dp4", (2, 2), 8, slower=20.0, times=1.1)
    new = told("pp2.1f1b-ga4", (2,), 9, slower=20.0, times=0.7)
    for rows in ([again, new], [replace(again, at=Instant(10)), new]):
        (lesson,) = lessons(rows, {fit.key: fit})
        learnt = learn(lesson)
        assert learnt.fit is not None
        assert learnt.fit.rows == 2


def test_a_row_that_the_others_do_not_bear_out_is_named() -> None:
    rows = [*ROWS, *(replace(each, at=Instant(each.at + 10)) for each in ROWS)]
    learnt = learn(next(iter(lessons([*rows, told("dp1-gc", (1,), 30, 20.0, times=50.0)], {}))))
    assert len(learnt.outliers) == 1
    assert learnt.outliers[0].startswith("dp1-gc on 1: ")


def test_fits_are_compared_with_what_was_measured_and_with_what_was_guessed_before() -> None:
    (lesson,) = lessons(ROWS, {})
    fit = learn(lesson).fit
    assert fit is not None
    vit = a_fit(model_type="vit-tiny fp32 batch 64x17")
    stale = replace(a_fit(model_type="bert-tiny fp32 batch 8x64"), parameters=())
    news = told("dp2-ga2", (2,), 9, slower=20.0)
    fits = {each.key: each for each in (fit, vit, stale)}
    old, first, second = reports(fits, [news, *ROWS])
    assert (old.fit, first.fit, second.fit) == (stale, fit, vit)
    assert (old.compared, second.compared) == ((), ())
    assert [each.told for each in first.compared] == [*ROWS, news]
    assert [each.is_news for each in first.compared] == [False] * 5 + [True]
    for each in first.compared:
        assert each.lower < each.predicted < each.upper
        assert each.predicted == pytest.approx(each.told.row.iteration, rel=0.3)
        assert each.guessed < 0.5 * each.predicted


def of_a_moment(times: float, at: int = 1) -> Observation:
    return told("dp1", (1,), at, times=times)


@pytest.mark.parametrize("times", [1000.0, 1e-3, 0.0, float("nan")])
def test_a_first_row_that_cannot_be_true_is_not_learnt_from_but_named(times: float) -> None:
    (lesson,) = lessons([of_a_moment(times)], {})
    alone = learn(lesson)
    assert alone.fit is None
    assert isnan(alone.error)
    (named,) = alone.outliers
    assert named.startswith("dp1 on 1: not learnt from: wanted ")
    good = [told("dp2", (2,), 2), told("dp4", (2, 2), 3)]
    both = learn(next(iter(lessons([of_a_moment(times), *good], {}))))
    without = learn(next(iter(lessons(good, {}))))
    assert both.fit == without.fit
    assert both.outliers == (named,)
    assert both.fit is not None
    assert list(lessons([*good, of_a_moment(times, at=9)], {both.fit.key: both.fit})) == []


def test_only_a_fit_that_can_be_used_teaches_another_model() -> None:
    old = replace(a_fit(model_type="vit-tiny fp32 batch 64x17", rows=90), parameters=())
    usable = a_fit(model_type="bert-tiny fp32 batch 8x64", rows=3)
    assert donor_of(TYPE, "cpu", [old, usable]) == usable
    assert donor_of(TYPE, "cpu", [old]) is None


def test_of_many_rows_those_of_jobs_and_of_imports_both_have_room() -> None:
    imported = [replace(told("dp1", (1,), 10), uid=JobUid(""), who="ann")] * 700
    live = [told("dp1", (1,), 1)] * 100
    (kept,) = by_type([*live, *imported]).values()
    assert [sum(each.who == who for each in kept) for who in ("", "ann")] == [100, 400]
    (kept,) = by_type([*live, *live, *live, *imported, *imported]).values()
    assert [sum(each.who == who for each in kept) for who in ("", "ann")] == [250, 250]
    assert [each.at for each in kept] == sorted(each.at for each in kept)
    newer = [told("dp1", (1,), at) for at in range(20, 920)]
    (kept,) = by_type([*imported[:30], *newer]).values()
    assert [each.at for each in kept] == [10] * 30 + list(range(450, 920))


def test_what_is_no_built_in_model_is_left_alone() -> None:
    row = ROWS[0].row
    script = replace(ROWS[0], row=replace(row, asked=replace(row.asked, model="train.py")))
    assert list(lessons([script], {})) == []
