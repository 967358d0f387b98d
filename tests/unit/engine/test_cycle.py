"""One cycle: what is ordered, what is said, and what a broken policy can do (nothing)."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from controlplane.baselines import BASELINES
from controlplane.baselines.equal_share import equal_share
from controlplane.domain.action import StartAttempt, StopAttempt
from controlplane.domain.event import JobSubmitted
from controlplane.domain.ids import Attempt, JobUid, QueueName
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Optimality, Violation
from controlplane.domain.preemption import Preemption
from controlplane.domain.queue import Queue
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent
from controlplane.domain.refusal import FIRST_SECONDS
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.engine.cycle import run_cycle
from controlplane.engine.invariants import violations
from controlplane.rubick.invariants import violations as rubick_violations
from headrace.api.plan import ExecutionPlan
from tests.builders import NOTHING_KNOWN, POLICIES, World, a_cluster, a_job, a_node, started

EITHER_POLICY = pytest.mark.parametrize("policy", sorted(POLICIES))
OF_OUR_OWN = pytest.mark.parametrize("policy", sorted(BASELINES))
"""Those that give jobs as much as there is, and keep to an order."""


@EITHER_POLICY
def test_who_waits_is_told_the_deficit_and_who_holds_it_and_only_once(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 4).submit(a_job("big").wanting(3)).settle()
    world.submit(a_job("next").wanting(2))
    outcome = world.cycle()
    assert [uid for uid, _ in outcome.decided.reasons] == ["next"]
    why = world.why("next")
    assert (why.code, why.wanted, why.available, why.deficit, why.holders) == (
        ReasonCode.WAITING_FOR_ACCELERATORS,
        2,
        1,
        1,
        ("big",),
    )
    assert world.passes(30).cycle().changes_nothing


@EITHER_POLICY
@pytest.mark.parametrize(
    ("job", "code"),
    [
        (a_job("odd").wanting(9), ReasonCode.EXCEEDS_CLUSTER),
        (a_job("odd").wanting(3).on_one_node(), ReasonCode.EXCEEDS_CLUSTER),
        (a_job("odd").of_type("h100"), ReasonCode.NO_MATCHING_ACCELERATOR),
        (a_job("odd").selecting(zone="moon"), ReasonCode.NO_MATCHING_ACCELERATOR),
        (a_job("odd").needing(cores=64), ReasonCode.NO_MATCHING_ACCELERATOR),
        (a_job("odd").wanting(3, 4).with_batch(7), ReasonCode.BATCH_NOT_DIVISIBLE),
        (a_job("odd").in_queue("nowhere"), ReasonCode.QUEUE_MISSING),
        (a_job("odd").wanting(3).in_queue("tiny"), ReasonCode.QUOTA_EXCEEDED),
        (a_job("odd").in_queue("of-others"), ReasonCode.QUEUE_NOT_FOR_NAMESPACE),
    ],
)
def test_a_job_that_cannot_run_is_told_so_in_that_cycle_and_blocks_nobody(
    policy: str, job: object, code: ReasonCode
) -> None:
    world = a_cluster(policy).with_nodes(2, 2).with_queue("tiny", quota=1)
    world.with_queue("of-others", namespaces=("team-a", "team-b"))
    world.submit(job, a_job("plain"))  # type: ignore[arg-type]
    world.cycle()
    assert world.code("odd") is code
    assert world.stage("plain") is Stage.STARTING


@EITHER_POLICY
def test_a_job_runs_on_when_its_queue_is_given_to_others_and_starts_there_no_more(
    policy: str,
) -> None:
    world = a_cluster(policy).with_nodes(1, 2).with_queue("shared")
    world.submit(a_job("runs").in_queue("shared")).settle()
    world.with_queue("shared", namespaces=("team-a",)).submit(a_job("waits").in_queue("shared"))
    world.settle()
    assert world.stage("runs") is Stage.RUNNING
    assert world.code("waits") is ReasonCode.QUEUE_NOT_FOR_NAMESPACE


def test_a_start_in_a_queue_of_other_namespaces_is_refused() -> None:
    def starts_all(snapshot: ClusterSnapshot) -> Decision:
        everywhere = replace(snapshot, queues={name: Queue(name) for name in snapshot.queues})
        return equal_share(everywhere)

    world = a_cluster().with_nodes(1, 2).with_queue("of-others", namespaces=("team-a",))
    world.under(starts_all).submit(a_job("odd").in_queue("of-others"), a_job("plain"))
    outcome = world.cycle(usable=False)
    assert [*started(outcome.decided.actions)] == ["plain"]
    assert outcome.refused == ("odd is in default, of which queue of-others takes no jobs",)


@EITHER_POLICY
def test_gangs_start_whole_or_not_at_all(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 2).submit(a_job().wanting(3))
    assert not started(world.cycle().decided.actions)
    world.with_node(a_node("n2", 1))
    assert started(world.cycle().decided.actions) == {"job": 3}


@OF_OUR_OWN
def test_types_are_never_mixed(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n1", 2, "old"), a_node("n2", 3, "new"))
    world.submit(a_job().wanting(1, 5)).settle()
    assert world.nodes_of("job") == {"n2"}


@EITHER_POLICY
def test_a_command_gets_one_unit_a_node(policy: str) -> None:
    world = a_cluster(policy).with_nodes(2, 4).submit(a_job().wanting(8).running_a_command())
    world.settle()
    units = world.attempt("job").placement.units
    assert [(unit.node, len(unit.accelerators), unit.first_rank) for unit in units] == [
        ("n1", 4, 0),
        ("n2", 4, 4),
    ]
    assert world.stage("job") is Stage.RUNNING


@OF_OUR_OWN
def test_sizes_divide_the_batch_and_micro_batches_stay_small(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 5).submit(a_job().wanting(1, 5).with_batch(24, 4))
    world.settle()
    plan = world.attempt("job").placement.plan
    assert (world.held("job"), plan.accumulation_steps) == (4, 2)


@EITHER_POLICY
def test_taints_keep_jobs_off_unless_tolerated(policy: str) -> None:
    world = a_cluster(policy).with_node(a_node("n1", 1, taints=["spot"]))
    world.submit(a_job("shy"), a_job("bold").tolerating("spot"))
    assert started(world.cycle().decided.actions) == {"bold": 1}


@EITHER_POLICY
def test_priority_then_guarantee_then_age_decide_who_goes_first(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 1)
    world.submit(a_job("old"), a_job("sure").guaranteed(), a_job("high").with_priority(2))
    order = []
    for _ in range(3):
        (uid,) = started(world.cycle().decided.actions)
        order.append(uid)
        world.runs(uid).exits(uid)
    assert order == ["high", "sure", "old"]


def stops(world: World) -> dict[str, str]:
    """What a cycle tells the jobs that it stops."""
    actions = world.cycle().decided.actions
    return {a.uid: a.reason.message for a in actions if isinstance(a, StopAttempt)}


def test_who_shrinks_is_told_for_whom_and_who_grows_back_has_no_one_to_name() -> None:
    world = a_cluster().with_nodes(1, 4).submit(a_job("gpt").wanting(1, 4)).settle()
    world.submit(a_job("vit").wanting(2))
    assert stops(world) == {"gpt": "dp4 -> dp2: makes room for default/vit"}
    assert world.why("gpt").message == "dp4 -> dp2: makes room for default/vit"
    world.stopped_ones_leave().settle().exits("vit")
    assert stops(world) == {"gpt": "dp2 -> dp4"}


@pytest.mark.parametrize(
    ("newcomers", "named"),
    [
        ("ab", "default/a and default/b"),
        ("abc", "default/a, default/b and default/c"),
        ("abcde", "default/a, default/b, default/c and 2 more"),
    ],
)
def test_a_few_of_many_newcomers_are_named(newcomers: str, named: str) -> None:
    world = a_cluster().with_nodes(1, 6).submit(a_job("big").wanting(1, 6)).settle()
    world.submit(*(a_job(name).wanting(1) for name in newcomers))
    (told,) = stops(world).values()
    assert told.endswith(f": makes room for {named}")


def test_who_is_pushed_out_is_told_by_whom() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job("low").wanting(2)).settle()
    world.submit(a_job("high").wanting(2).with_priority(1))
    told = stops(world)["low"]
    assert told.startswith("gives back 2 accelerators: makes room for default/high (preemptor UID:")
    reason = world.attempt("low").intent_reason
    assert reason is not None
    assert reason.preemption == Preemption(
        *(JobUid("high"), QueueName("default"), 1), *(QueueName("default"), 0)
    )
    assert told.endswith(
        "(preemptor UID: high; preemptor path: /default; preemptee path: /default; "
        "preemptor priority: 1; preemptee priority: 0)"
    )


def test_who_shrinks_to_share_a_quota_is_told_with_whom() -> None:
    world = a_cluster().with_nodes(2, 4).with_queue("q", quota=4)
    world.submit(a_job("a").in_queue("q").wanting(1, 4)).settle()
    world.submit(a_job("b").in_queue("q").wanting(1, 4), a_job("elsewhere"))
    assert stops(world) == {"a": "dp4 -> dp2: makes room for default/b"}


def test_who_leaves_a_drained_node_makes_room_for_nobody() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job()).settle()
    (node,) = world.nodes_of("job")
    (other,) = {"n1", "n2"} - {node}
    world.drain(node)
    assert stops(world) == {"job": f"moves to {other}: {node} takes no work now"}


def test_who_shrinks_because_a_node_is_drained_is_told_so() -> None:
    world = a_cluster().with_nodes(2, 1).submit(a_job().wanting(1, 2)).settle()
    world.drain("n1")
    assert stops(world) == {"job": "dp2 -> dp1: n1 takes no work now"}
    assert world.code("job") is ReasonCode.MOVED_OFF_NODE


def test_a_job_that_starts_again_after_a_failure_says_after_which() -> None:
    world = a_cluster().with_nodes(1, 1).submit(a_job()).settle()
    world.fails("job").passes(600).cycle()
    message = "starts as dp1 on n1 again, after attempt 1: said RankFailed"
    assert world.why("job").message == message


@OF_OUR_OWN
def test_a_quota_is_kept_even_while_its_holders_are_only_about_to_leave(policy: str) -> None:
    world = a_cluster(policy).with_nodes(1, 8).with_queue("q", quota=4)
    world.submit(a_job("a").in_queue("q").wanting(1, 4)).settle()
    world.submit(a_job("b").in_queue("q").wanting(1, 4))
    for _ in range(3):
        world.cycle()
        assert world.held("a") + world.held("b") <= 4
    world.settle()
    assert world.held("a") + world.held("b") == 4


@EITHER_POLICY
def test_what_a_queue_may_borrow_is_a_hard_limit_for_policies_that_do_not_take_back(
    policy: str,
) -> None:
    for borrowing, most in ((2, 6), (None, 8)):
        world = a_cluster(policy).with_nodes(1, 8).with_queue("q", 4, borrowing)
        world.submit(*(a_job(f"j{i}").in_queue("q") for i in range(9))).settle()
        assert sum(world.held(f"j{i}") for i in range(9)) == most


def test_an_order_beyond_what_a_queue_may_borrow_is_refused() -> None:
    world = a_cluster().with_nodes(1, 8).with_queue("q", 4, 3)
    world.submit(a_job("a").in_queue("q").wanting(7))
    ordered = run_cycle(world.state, world.now, world.policies, world.term).decided.actions
    assert list(violations(world.state.snapshot(world.now), ordered)) == []
    world.with_queue("q", 4, 2)
    (broken,) = violations(world.state.snapshot(world.now), ordered)
    assert broken.text == "queue q would hold 7 accelerators of its 6"
    assert set(broken.jobs) == {order.uid for order in ordered}


def test_who_waits_for_a_quota_to_be_let_go_is_told_who_holds_it() -> None:
    world = a_cluster().with_node(a_node("n1", 4, "x"), a_node("n2", 4, "y"))
    world.with_queue("q", quota=4).submit(a_job("other").of_type("x"))
    world.submit(a_job("a").in_queue("q").wanting(1, 4).of_type("y")).settle()
    world.submit(a_job("b").in_queue("q").wanting(1, 4).of_type("x")).cycle()
    why = world.why("b")
    assert (why.code, why.deficit, why.holders) == (ReasonCode.WAITING_FOR_RELEASE, 2, ("a",))
    assert "queue q still holds 4 of its 4" in why.message


def raises(snapshot: ClusterSnapshot) -> Decision:
    raise ZeroDivisionError("no share of nothing")


def returns_nonsense(snapshot: ClusterSnapshot) -> object:
    return None


def promises_the_moon(snapshot: ClusterSnapshot) -> object:
    return Decision(dict.fromkeys(snapshot.jobs, "everything"), {})  # type: ignore[arg-type]


def gives_one_accelerator_to_two(snapshot: ClusterSnapshot) -> Decision:
    decision = equal_share(snapshot)
    free = decision.targets[JobUid("a")]
    return replace(decision, targets={**decision.targets, JobUid("b"): free})


def starts_a_gang_of_nobody(snapshot: ClusterSnapshot) -> Decision:
    decision = equal_share(snapshot)
    part = {u: Placement(p.plan, ()) for u, p in decision.targets.items() if u == "a"}
    return replace(decision, targets={**decision.targets, **part})


@pytest.mark.parametrize(
    "policy",
    [
        raises,
        returns_nonsense,
        promises_the_moon,
    ],
)
def test_a_broken_policy_leaves_jobs_running_and_says_so(policy: Callable[..., object]) -> None:
    world = a_cluster().with_nodes(1, 4).submit(a_job("runs")).settle()
    before = world.attempt("runs")
    world.under(policy)
    world.submit(a_job("a"), a_job("b"), a_job("s").suspended())
    outcome = world.cycle(usable=False)
    assert outcome.refused
    assert outcome.decided.actions == ()
    assert world.attempt("runs") == before
    assert world.code("a") is ReasonCode.POLICY_REFUSED
    assert world.job("s").reason is None
    assert world.cycle(usable=False).changes_nothing


def test_a_gang_of_nobody_is_not_started_and_the_others_are() -> None:
    world = a_cluster().with_nodes(1, 4).under(starts_a_gang_of_nobody)
    world.submit(a_job("a"), a_job("b"), a_job("s").suspended())
    outcome = world.cycle(usable=False)
    assert set(outcome.refused_jobs) == {"a"}
    assert started(outcome.decided.actions) == {"b": 1}
    assert world.code("a") is ReasonCode.POLICY_REFUSED
    assert world.code("s") is ReasonCode.SUSPENDED


def too_many_ranks(target: Placement) -> Placement:
    return replace(target, plan=ExecutionPlan(data_parallel=target.plan.ranks + 1))


def wrong_about(name: str, wrong: Callable[[Placement], Placement]) -> Callable[..., Decision]:
    """Equal shares, but for one job."""

    def decides(snapshot: ClusterSnapshot) -> Decision:
        decision, uid = equal_share(snapshot), JobUid(name)
        if uid not in decision.targets:
            return decision
        return replace(decision, targets={**decision.targets, uid: wrong(decision.targets[uid])})

    return decides


def test_a_mistake_about_one_job_is_refused_alone_and_the_others_start() -> None:
    world = a_cluster().with_nodes(2, 2).under(wrong_about("b", too_many_ranks))
    world.submit(a_job("a"), a_job("b"), a_job("c"))
    outcome = world.cycle(usable=False)
    assert started(outcome.decided.actions) == {"a": 1, "c": 1}
    text = "b: plan dp2 does not occupy 1 accelerator"
    assert outcome.refused[0] == text
    assert outcome.refused_jobs == {"b": text}
    assert outcome.refused_whole == ()
    assert set(outcome.targets) == {"a", "c"}
    assert world.code("b") is ReasonCode.POLICY_REFUSED
    assert text in world.why("b").message
    assert world.cycle(usable=False).changes_nothing


def test_who_runs_and_is_decided_about_wrongly_keeps_what_it_has_and_is_told() -> None:
    world = a_cluster().with_nodes(1, 4).submit(a_job("a"), a_job("b")).settle()
    before = world.attempt("a")
    world.under(wrong_about("a", too_many_ranks)).submit(a_job("c"))
    outcome = world.cycle(usable=False)
    assert started(outcome.decided.actions) == {"c": 1}
    assert world.attempt("a") == before
    assert world.code("a") is ReasonCode.POLICY_REFUSED
    world.policies["tried"] = equal_share
    world.passes(FIRST_SECONDS).cycle()
    assert world.code("a") is ReasonCode.RUNNING


def test_two_that_would_get_the_same_are_both_refused_and_a_third_starts() -> None:
    world = a_cluster().with_nodes(1, 3).submit(a_job("a"), a_job("b"), a_job("c"))
    world.under(gives_one_accelerator_to_two)
    outcome = world.cycle(usable=False)
    assert started(outcome.decided.actions) == {"c": 1}
    assert set(outcome.refused_jobs) == {"a", "b"}
    assert "n1-0 of n1 would be given to a and to b" in outcome.refused


def test_who_would_get_what_another_holds_is_the_one_that_is_refused() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job("a")).settle()
    held = world.attempt("a").placement

    class Takes:
        """Starts another one where the first one is; careful enough to look at its targets."""

        def __call__(self, snapshot: ClusterSnapshot) -> Decision:
            return replace(equal_share(snapshot), targets={JobUid("a"): held, JobUid("b"): held})

        def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
            return rubick_violations(snapshot, decision, NOTHING_KNOWN, cool_down_seconds=0.0)

    world.submit(a_job("b")).under(Takes())
    outcome = world.cycle(usable=False)
    assert set(outcome.refused_jobs) == {"b"}
    assert world.attempt("a").placement == held


def test_who_keeps_what_another_was_to_get_is_in_its_way_and_both_are_told() -> None:
    """The first is refused, so what the second was to get of it is not free: it is refused too, and
    only the third, which takes nothing of that, starts.
    """
    world = a_cluster().with_nodes(1, 3).submit(a_job("a")).settle()
    a_has = world.attempt("a").placement

    class Swaps:
        def __call__(self, snapshot: ClusterSnapshot) -> Decision:
            other = equal_share(snapshot).targets
            targets = {
                JobUid("a"): too_many_ranks(other[JobUid("b")]),
                JobUid("b"): a_has,
                JobUid("c"): other[JobUid("c")],
            }
            return replace(equal_share(snapshot), targets=targets)

        def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
            return rubick_violations(snapshot, decision, NOTHING_KNOWN, cool_down_seconds=0.0)

    world.submit(a_job("b"), a_job("c")).under(Swaps())
    outcome = world.cycle(usable=False)
    assert set(outcome.refused_jobs) == {"a", "b"}
    assert started(outcome.decided.actions) == {"c": 1}
    assert world.attempt("a").placement == a_has


def test_too_much_for_a_queue_is_refused_in_that_queue_alone() -> None:
    def ignores_quotas(snapshot: ClusterSnapshot) -> Decision:
        whole = {
            name: replace(queue, quota_accelerators=None) for name, queue in snapshot.queues.items()
        }
        return equal_share(replace(snapshot, queues=whole))

    world = a_cluster().with_nodes(1, 4).with_queue("narrow", quota=1).under(ignores_quotas)
    world.submit(a_job("a").in_queue("narrow").wanting(2), a_job("b"))
    snapshot, orders = world.state.snapshot(world.now), []
    for uid, target in ignores_quotas(snapshot).targets.items():
        orders.append(StartAttempt(uid, Attempt(1), target, Reason(ReasonCode.STARTED)))
    (broken,) = violations(snapshot, tuple(orders))
    assert (broken.text, broken.jobs) == ("queue narrow would hold 2 accelerators of its 1", ("a",))


def test_what_nobody_can_be_blamed_for_refuses_the_whole_decision() -> None:
    class Boasts:
        def __call__(self, snapshot: ClusterSnapshot) -> Decision:
            return replace(equal_share(snapshot), optimality=Optimality(2.0, 1.0, {}))

        def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
            return rubick_violations(snapshot, decision, NOTHING_KNOWN, cool_down_seconds=0.0)

    world = a_cluster().with_nodes(1, 2).submit(a_job("a")).under(Boasts())
    outcome = world.cycle(usable=False)
    assert outcome.refused_whole == ("the decision is worth 2, more than the proven bound 1",)
    assert outcome.decided.actions == ()
    assert outcome.refused_jobs == {}


def test_a_target_of_a_job_that_is_gone_is_dropped_alone() -> None:
    class Remembers:
        def __call__(self, snapshot: ClusterSnapshot) -> Decision:
            decision = equal_share(snapshot)
            gone = {JobUid("gone"): decision.targets[JobUid("a")]}
            return replace(decision, targets={**decision.targets, **gone})

        def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
            # The target of a job that is there is not to blame.
            found = rubick_violations(snapshot, decision, NOTHING_KNOWN, cool_down_seconds=0.0)
            return (each for each in found if each.text == "gone is not a known job")

    world = a_cluster().with_nodes(1, 2).submit(a_job("a")).under(Remembers())
    outcome = world.cycle(usable=False)
    assert outcome.refused_jobs == {"gone": "gone is not a known job"}
    assert started(outcome.decided.actions) == {"a": 1}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("tp4", "tensor-parallel ranks of tp4 would be on several nodes"),
        ("dp4-z3", "dp4-z3 is none of its plans"),
        ("dp2", "plan dp2 does not occupy 4 accelerators"),
        ("dp4-ga3", "batch 8 does not divide by plan dp4-ga3"),
        ("dp4", "plan dp4 means micro-batches of 2, which is too many"),
        ("pp4.1f1b-ga8", ""),
    ],
)
def test_a_plan_that_cannot_be_laid_out_so_is_not_started(plan: str, words: str) -> None:
    def plans(snapshot: ClusterSnapshot) -> Decision:
        decision = equal_share(snapshot)
        wrong = replace(decision.targets[JobUid("a")], plan=ExecutionPlan.parse(plan))
        return replace(decision, targets={JobUid("a"): wrong})

    job = a_job("a").wanting(4).with_batch(8, micro=1)
    named = ("tp4", "dp2", "dp4-ga3", "dp4", "pp4.1f1b-ga8")
    world = a_cluster().with_nodes(2, 2).submit(job.under("dp4-ga2", *named)).under(plans)
    refused = world.cycle(usable=not words).refused
    assert any(words in sentence for sentence in refused) == bool(words)


@pytest.mark.parametrize(
    ("plan", "words"),
    [("dp1", "a: dp1 does not fit the memory of n-0"), ("dp1-z2-offload", "")],
)
def test_a_plan_that_does_not_fit_the_memory_is_not_started(plan: str, words: str) -> None:
    def plans(snapshot: ClusterSnapshot) -> Decision:
        decision = equal_share(snapshot)
        wrong = replace(decision.targets[JobUid("a")], plan=ExecutionPlan.parse(plan))
        return replace(decision, targets={JobUid("a"): wrong})

    world = a_cluster().with_node(a_node("n", 1, "h100", gib=79.6, host_gib_each=512))
    job = a_job("a").with_batch(8).of_model("llama-2-7b", length=1024)
    world.submit(job.under("dp1", "dp1-z3-offload", "dp1-z2-offload")).under(plans)
    assert world.cycle(usable=not words).refused == ((words,) if words else ())


def test_who_names_no_plans_is_data_parallel_whatever_a_policy_says() -> None:
    def pipelines(snapshot: ClusterSnapshot) -> Decision:
        decision = equal_share(snapshot)
        wrong = replace(decision.targets[JobUid("a")], plan=ExecutionPlan.parse("pp2.1f1b-ga2"))
        return replace(decision, targets={JobUid("a"): wrong})

    world = a_cluster().with_nodes(1, 2).submit(a_job("a").wanting(2).with_batch(8))
    (refused,) = world.under(pipelines).cycle(usable=False).refused
    assert refused == "a names no plans and runs data parallel, not as pp2.1f1b-ga2"


def test_duties_are_done_under_a_broken_policy_too() -> None:
    world = a_cluster().with_nodes(1, 2).submit(a_job("gone"), a_job("new").training(1)).settle()
    world.under(raises).withdraw("gone").update(a_job("new").training(2))
    world.cycle(usable=False)
    assert world.attempt("gone").intent is Intent.END
    assert world.attempt("new").intent is Intent.STOP


def test_an_unknown_policy_is_named_with_those_that_there_are() -> None:
    world = a_cluster("round-robin").with_nodes(1, 1).submit(a_job())
    world.cycle(usable=False)
    assert world.why("job").message.endswith("'round-robin'; there are equal-share, fifo, rubick")


def test_a_cycle_is_a_function_of_its_arguments() -> None:
    world = a_cluster().with_nodes(2, 3).submit(*(a_job(f"j{i}").wanting(1, 4) for i in range(4)))
    once, twice = (run_cycle(world.state, world.now, BASELINES, world.term) for _ in range(2))
    assert once == twice


def test_a_job_that_arrives_while_a_decision_is_logged_is_seen_by_the_next() -> None:
    world: World = a_cluster().with_nodes(1, 2).submit(a_job("a"))
    outcome = world.cycle(JobSubmitted(a_job("b").job))
    assert started(outcome.decided.actions) == {"a": 1}
    assert world.replayed() == world.state
    assert started(world.cycle().decided.actions) == {"b": 1}
    assert world.replayed() == world.state
