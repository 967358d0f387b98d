"""Rubick in a world of well-behaved agents: who gets what, who makes room, what is promised."""

import random
from dataclasses import replace

import pytest

from controlplane.domain.action import ChangePlan, StartAttempt
from controlplane.domain.ids import JobUid
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Violation
from controlplane.domain.reason import ReasonCode
from controlplane.domain.record import Intent, Outcome
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.switch import SwitchKind
from controlplane.domain.switch_price import SwitchPrice
from controlplane.engine.resizing import units_for
from controlplane.placing.shares import shares_of
from controlplane.placing.standing import Standings
from controlplane.rubick.in_place import is_in_place
from controlplane.rubick.policy import Rubick
from controlplane.rubick.seating import Menu, Seats
from controlplane.rubick.settings import RubickSettings
from tests.builders import World, a_cluster, a_job, a_node
from tests.rubick.worlds import Scaling, a_known_job

HOUR = 3600.0


def rubick(times: Scaling | None = None, **changes: float) -> Rubick:
    chosen = {"switch_seconds": 1.0, "cool_down_seconds": 10.0} | changes
    return Rubick(lambda _: times or Scaling(), RubickSettings(**chosen))  # type: ignore[arg-type]


def world(policy: Rubick, *nodes: int) -> World:
    built = a_cluster().under(policy)
    for i, count in enumerate(nodes or (8,)):
        built.with_node(a_node(f"n{i}", count, "gpu"))
    return built


def lies(built: World, name: str) -> tuple[int, ...]:
    return shares_of(built.attempt(name).placement)


def test_alone_a_job_gets_the_fastest_way() -> None:
    built = world(rubick(), 8, 8).submit(a_known_job("a", most=16)).settle()
    assert lies(built, "a") == (8, 8)


def test_a_job_gets_no_more_than_makes_it_faster() -> None:
    slower = world(rubick(Scaling(exponent=-0.5)), 8).submit(a_known_job("a")).settle()
    assert lies(slower, "a") == (1,)


def test_a_job_leaves_for_those_to_come_what_would_help_it_little() -> None:
    built = world(rubick(Scaling(exponent=0.1)), 8).submit(a_known_job("a")).settle()
    assert built.held("a") < 8


def test_a_newcomer_gets_room_from_one_that_needs_it_longer() -> None:
    built = world(rubick()).submit(a_known_job("long", steps=100_000)).settle()
    assert built.held("long") == 8
    built.passes(60).submit(a_known_job("short", steps=1000)).settle()
    assert built.held("short") >= 1
    built.passes(60).exits("short").passes(60).settle()
    assert built.held("long") == 8


def test_who_runs_on_the_faster_type_is_as_fast_as_that_and_stays() -> None:
    policy = rubick(Scaling(faster=(("fast", 4.0),), layouts=((1,),)))
    built = a_cluster().under(policy)
    built.with_node(a_node("n0", 1, "slow"), a_node("n1", 1, "fast"))
    built.submit(a_known_job("a", steps=100_000)).settle().passes(60)
    assert built.nodes_of("a") == {"n1"}
    decision = policy(built.state.snapshot(built.now))
    assert decision.reasons[built.job("a").uid].code is ReasonCode.RUNNING
    assert decision.targets[built.job("a").uid] is built.attempt("a").placement


def test_nobody_is_changed_right_after_a_change() -> None:
    built = world(rubick(cool_down_seconds=300.0)).submit(a_known_job("a", steps=100_000)).settle()
    built.passes(60).submit(a_known_job("b", steps=1000))
    outcome = built.cycle()
    assert outcome.decided.actions == ()
    assert built.code("b") is ReasonCode.WAITING_FOR_ACCELERATORS
    built.passes(300).settle()
    assert built.held("b") >= 1


def test_a_job_grows_into_what_is_left_when_another_ends() -> None:
    built = world(rubick(Scaling(exponent=0.2)))
    built.submit(a_known_job("a", steps=50_000), a_known_job("b", steps=50_000))
    built.settle()
    before = built.held("a")
    built.passes(60).exits("b").passes(60).settle()
    assert built.held("a") == 8 > before


def test_a_change_that_saves_too_little_is_not_made() -> None:
    # Ten steps are left: a switch of 100 s for a tenth of that would be a loss.
    built = world(rubick(switch_seconds=100.0), 1, 8)
    built.submit(a_job("other").wanting(8)).settle()
    built.submit(a_known_job("a", steps=100)).settle()
    assert built.held("a") == 1
    built.trains("a", step=90).exits("other").passes(60)
    assert built.cycle().decided.actions == ()


def test_who_is_guaranteed_gets_the_speed_of_what_it_asks_for() -> None:
    built = world(rubick()).submit(
        *(a_known_job(f"b{i}", steps=100_000) for i in range(8)),
        a_known_job("g", asked=4, guaranteed=True),
    )
    built.settle()
    assert built.held("g") >= 4


def test_who_is_guaranteed_displaces_who_is_not() -> None:
    built = world(rubick()).submit(a_known_job("a", most=8, steps=10, asked=8)).settle()
    assert built.held("a") == 8
    built.passes(60).submit(a_known_job("g", steps=100_000, asked=8, guaranteed=True)).settle()
    assert built.held("g") == 8
    assert built.held("a") == 0
    assert built.job("a").stage is Stage.QUEUED


def test_who_is_guaranteed_is_not_put_off_for_a_shorter_one() -> None:
    built = world(rubick()).submit(a_known_job("g", steps=100_000, asked=8, guaranteed=True))
    built.settle().passes(60).submit(a_known_job("short", steps=1)).settle()
    assert built.held("g") == 8
    assert built.held("short") == 0


def test_a_promise_is_kept_with_fewer_where_a_better_plan_needs_fewer() -> None:
    # Four of one node are as fast as what it asks for: two of each of two nodes are not.
    times = Scaling(layouts=((2, 2), (4,), (2,)))
    built = world(rubick(times), 4, 4).submit(a_known_job("g", asked=4, guaranteed=True)).settle()
    assert lies(built, "g") == (4,)


def test_a_job_whose_steps_nobody_knows_gets_what_it_asks_for() -> None:
    built = world(rubick()).submit(a_job("a").wanting(4), a_job("c").running_a_command().wanting(2))
    built.settle()
    assert (built.held("a"), built.held("c")) == (4, 2)


def test_a_quota_is_kept() -> None:
    built = world(rubick()).with_queue("q", 3)
    built.submit(*(a_known_job(n, steps=10_000).in_queue("q") for n in "abcde")).settle()
    assert sum(built.held(n) for n in "abcde") <= 3
    waiting = [n for n in "abcde" if not built.held(n)]
    assert {built.code(n) for n in waiting} == {ReasonCode.QUOTA_EXCEEDED}


def test_a_large_job_is_not_starved_by_small_ones() -> None:
    times = Scaling(layouts=((1,), (2,), (4,), (8,)))
    built = world(rubick(times, starving_seconds=600.0, displaced_at_most=0), 8)
    built.submit(*(a_known_job(f"s{i}", most=2, steps=4000) for i in range(4))).settle()
    built.submit(a_known_job("large", steps=200_000).wanting(8, 8)).settle().passes(900)
    for i in range(4):
        # Others come all the time; what one leaves is kept for the job that starves.
        assert built.held("large") == 0
        built.submit(a_known_job(f"t{i}", most=2, steps=4000)).exits(f"s{i}").settle()
    assert built.held("large") == 8


def test_short_jobs_run_on_reserved_nodes_meanwhile() -> None:
    times = Scaling(layouts=((1,), (4,), (8,)))
    policy = rubick(times, starving_seconds=600.0, displaced_at_most=0, cool_down_seconds=1e4)
    built = world(policy, 8).submit(a_known_job("s", most=4, steps=40_000)).settle()
    built.submit(a_known_job("large", steps=200_000).wanting(8, 8)).settle().passes(700)
    built.submit(
        a_known_job("long", most=1, steps=1_000_000), a_known_job("tiny", most=1, steps=5)
    ).settle()
    assert built.held("tiny") == 1
    assert built.held("long") == 0


def test_of_two_types_each_job_gets_the_one_where_it_is_worth_more() -> None:
    built = a_cluster().under(rubick(Scaling(faster=(("fast", 1.2),), layouts=((1,),))))
    built.with_node(a_node("slow", 1, "slow"), a_node("quick", 1, "fast"))
    built.submit(a_known_job("long", steps=10_000), a_known_job("short", steps=100)).settle()
    assert built.held("long") == built.held("short") == 1
    # It saves the long one 28 minutes, and would save the short one 17 seconds.
    assert built.attempt("long").placement.nodes == {"quick"}


def test_equal_worlds_are_decided_equally() -> None:
    def play() -> list[Placement]:
        built = world(rubick(), 8, 4)
        built.submit(*(a_known_job(f"j{i}", steps=1000 * (i + 1)) for i in range(9))).settle()
        return [r.attempt.placement for r in built.state.jobs.values() if r.attempt is not None]

    assert play() == play()


def test_the_worth_is_told_with_its_bound() -> None:
    policy = rubick()
    built = world(policy, 8, 4)
    built.submit(*(a_known_job(f"j{i}", steps=1000 * (i + 1)) for i in range(9)))
    outcome = built.cycle()
    assert outcome.optimality is not None
    assert 0.0 < outcome.optimality.value <= outcome.optimality.bound
    assert outcome.optimality.gap < 0.2


@pytest.mark.parametrize("name", ["starving_share", "shortest_first"])
def test_a_setting_out_of_range_is_refused_with_the_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: wanted 0 to 1, got 2"):
        RubickSettings(**{name: 2.0})  # type: ignore[arg-type]


def test_a_decision_that_breaks_a_promise_is_not_carried_out() -> None:
    policy = rubick()

    class Careless:
        """Drops everybody."""

        def __call__(self, snapshot: ClusterSnapshot) -> Decision:
            return Decision({}, {})

        def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> list[Violation]:
            return list(policy.violations(snapshot, decision))

    built = world(policy).submit(a_known_job("g", asked=4, guaranteed=True)).settle().passes(60)
    built.under(Careless())
    outcome = built.cycle(usable=False)
    assert outcome.refused == ("g is guaranteed and would lose what it has",)
    assert set(outcome.refused_jobs) == {"g"}
    assert outcome.decided.actions == ()


def test_orders_say_what_is_predicted_of_them() -> None:
    known = [Scaling()]
    settings = RubickSettings(switch_seconds=1.0, cool_down_seconds=10.0)
    built = world(Rubick(lambda _: known[-1], settings))
    (start,) = built.submit(a_known_job("a", steps=100_000)).cycle().decided.actions
    assert isinstance(start, StartAttempt)
    assert start.reason.message == "starts as dp8 on n0: 5.28 steps a second are predicted"
    built.runs("a").passes(60)
    # Fewer are as good now, and nobody waits for the others.
    known.append(Scaling(exponent=-0.2))
    (change,) = built.cycle().decided.actions
    assert isinstance(change, ChangePlan)
    assert change.reason.code is ReasonCode.PLAN_CHANGED
    assert change.reason.message == "dp8 -> dp1: 1 steps a second are predicted"


MEMORY, RESTART = SwitchKind.MEMORY, SwitchKind.RESTART


@pytest.mark.parametrize(
    ("paid", "in_memory", "restart"),
    [
        ((), 7.0, 7.0),
        ((("other", 2, 1, MEMORY, (99.0,)),), 7.0, 7.0),
        ((("model", 2, 1, RESTART, (30.0, 20.0, 40.0)),), 30.0, 30.0),
        ((("model", 2, 1, MEMORY, (2.0,)),), 2.0, 7.0),
        ((("model", 2, 1, MEMORY, (9.0,)),), 9.0, 9.0),
        (
            (
                ("model", 2, 1, MEMORY, (0.5, 0.7, 0.6, 0.5)),
                ("model", 1, 2, MEMORY, (9.0, 12.0, 10.0)),
                ("model", 2, 1, RESTART, (30.0,)),
                ("model", 2, 2, RESTART, (25.0,)),
            ),
            10.0,
            30.0,
        ),
        ((("model", 1, 2, MEMORY, (9.0,)), ("model", 2, 1, RESTART, (3.0,))), 9.0, 9.0),
    ],
)
@pytest.mark.parametrize("steps", [1000, 0])
def test_each_kind_of_change_is_taken_to_cost_what_its_dearest_sort_does(
    paid: tuple[tuple[str, int, int, SwitchKind, tuple[float, ...]], ...],
    in_memory: float,
    restart: float,
    steps: int,
) -> None:
    built = world(rubick()).submit(a_known_job("a", steps=steps))
    prices = {
        str(number): SwitchPrice(model, before, after, kind, last=last)
        for number, (model, before, after, kind, last) in enumerate(paid)
    }
    built.settle().passes(60)
    snapshot = replace(built.state.snapshot(built.now), switch_prices=prices)
    standings = Standings(snapshot, possible=lambda *_: True, chooses_plans=True)
    menu, settings = Menu(), RubickSettings(switch_seconds=7.0)
    menu.begin(Scaling(), snapshot)
    (seat,) = Seats(snapshot, standings.jobs, standings.empty, menu, settings).every
    # What has no end is no training of ours, whose ranks can stay.
    assert seat.switch_seconds == pytest.approx(in_memory if steps else restart)
    assert seat.restart_seconds == pytest.approx(restart)


def paid(in_memory: float, restart: float) -> dict[str, SwitchPrice]:
    return {
        "in memory": SwitchPrice("model", 2, 4, MEMORY, 1, in_memory, (in_memory,)),
        "restart": SwitchPrice("model", 4, 4, RESTART, 1, restart, (restart,)),
    }


def test_choices_that_no_rank_can_stay_for_are_worth_what_a_restart_leaves_of_them() -> None:
    built = world(rubick(), 4).submit(a_known_job("a", 8, 5000)).settle().passes(60)
    built.with_node(a_node("n1", 8, "gpu"), a_node("n2", 4, "fast"))
    snapshot = replace(built.state.snapshot(built.now), switch_prices=paid(2.0, 120.0))
    standings = Standings(snapshot, possible=lambda *_: True, chooses_plans=True)
    menu = Menu()
    menu.begin(Scaling(faster=(("fast", 1.5),)), snapshot)
    seats = Seats(snapshot, standings.jobs, standings.empty, menu, RubickSettings())
    (seat,) = seats.every
    assert seat.worths.of_restarts is not None
    assert seat.worths.restarting == pytest.approx(60 * seat.worths.switching)
    lost = (seat.worths.of_choices - seat.worths.of_restarts) / seat.worths.of_a_second
    in_memory = {(1,), (2,), (4,), (8,), (4, 4)}
    found = set()
    for each, seconds in zip(seat.choices.every, lost.tolist(), strict=True):
        stays = each.kind == "gpu" and each.shares in in_memory
        harm = 1 + seats.competition * each.accelerators
        assert seconds == pytest.approx(118 * harm if stays else 0.0)
        found.add((stays, each.kind))
    assert found >= {(True, "gpu"), (False, "fast")}


def nodes_after(built: World, in_memory: float, restart: float) -> set[str]:
    """Nodes of the job ``a`` after a round in which changes cost so much."""
    snapshot = replace(built.state.snapshot(built.now), switch_prices=paid(in_memory, restart))
    return {str(node) for node in built.policies["tried"](snapshot).targets[JobUid("a")].nodes}


@pytest.mark.parametrize(("restart", "node"), [(120.0, "n0"), (40.0, "n1"), (2.0, "n1")])
@pytest.mark.parametrize("search_nodes", [0, 100], ids=["dealt", "searched"])
def test_another_type_is_a_restart_and_costs_as_much(
    restart: float, node: str, search_nodes: int
) -> None:
    """Where it is the job needs 177 s more, and on the faster type 118 s and what a restart costs:
    with 120 s it would be worse off.
    """
    times = Scaling(faster=(("fast", 1.5),))
    built = world(rubick(times, search_nodes=search_nodes), 4).submit(a_known_job("a", 4, 720))
    built.settle().passes(60).with_node(a_node("n1", 4, "fast"))
    assert nodes_after(built, 2.0, restart) == {node}


WITHIN_NODES = Scaling(layouts=((1,), (2,), (4,)))


@pytest.mark.parametrize(
    ("times", "restart", "nodes"),
    [
        (WITHIN_NODES, 500.0, {"n0"}),
        (WITHIN_NODES, 2.0, {"n1"}),
        # Others join it from the next node, and nobody restarts.
        (Scaling(), 500.0, {"n0", "n1"}),
        (Scaling(), 2.0, {"n1"}),
    ],
)
@pytest.mark.parametrize("search_nodes", [0, 100], ids=["dealt", "searched"])
def test_where_its_ranks_cannot_stay_a_job_goes_only_if_that_is_worth_a_restart(
    times: Scaling, restart: float, nodes: set[str], search_nodes: int
) -> None:
    built = world(rubick(times, search_nodes=search_nodes), 4)
    built.submit(a_known_job("b", 2, 100_000, 2, guaranteed=True)).settle()
    built.submit(a_known_job("a", 4, 1000)).settle().passes(60)
    assert (built.held("a"), built.held("b")) == (2, 2)
    built.with_node(a_node("n1", 4, "gpu"))
    assert nodes_after(built, 2.0, restart) == nodes


@pytest.mark.parametrize("search_nodes", [0, 100], ids=["dealt", "searched"])
def test_who_can_grow_where_it_is_does_not_restart_elsewhere(search_nodes: int) -> None:
    """Both nodes have room, and the other one has less: it would be found first."""
    known = [Scaling(layouts=((1,), (2,)))]
    chosen = RubickSettings(switch_seconds=1.0, cool_down_seconds=10.0, search_nodes=search_nodes)
    built = world(Rubick(lambda _: known[-1], chosen), 8).submit(a_known_job("a", 8, 5000)).settle()
    assert built.held("a") == 2
    built.passes(60).with_node(a_node("n1", 4, "gpu"))
    known.append(Scaling(layouts=((1,), (2,), (4,))))
    assert nodes_after(built, 2.0, 120.0) == {"n0"}
    assert nodes_after(built, 2.0, 2.0) == {"n1"}


def played(luck: random.Random) -> World:
    """Jobs run on three nodes, one of them ends, and sometimes a node comes."""
    built = world(rubick(Scaling(faster=(("fast", 1.5),))), *luck.choices((4, 8), k=3))
    for number in range(5):
        most = luck.choice((4, 8, 16))
        built.submit(a_known_job(f"j{number}", most, luck.randint(500, 9000))).settle().passes(60)
    gone = luck.choice([str(uid) for uid in built.state.jobs if built.held(str(uid))])
    built.withdraw(gone).cycle()
    built.exits(gone, Outcome.STOPPED).passes(60)
    if luck.random() < 0.5:
        built.with_node(a_node("extra", 8, luck.choice(("gpu", "fast"))))
    return built


@pytest.mark.parametrize("search_nodes", [0, 100], ids=["dealt", "searched"])
def test_what_a_round_takes_for_a_change_in_memory_is_one_to_the_engine(search_nodes: int) -> None:
    """Rounds foresee by nodes what the engine decides by accelerators. No round is worth more than
    its bound, however dear restarts are.
    """
    seen: set[bool] = set()
    policy = rubick(Scaling(faster=(("fast", 1.5),)), search_nodes=search_nodes)
    for seed in range(24):
        built = played(random.Random(seed))
        prices = paid(2.0, (2.0, 60.0, 600.0)[seed % 3])
        snapshot = replace(built.state.snapshot(built.now), switch_prices=prices)
        decided = policy(snapshot)
        assert decided.optimality is not None
        assert decided.optimality.value <= decided.optimality.bound
        kinds = {node: kind for node, offer in snapshot.usable.items() for kind in offer}
        for uid, target in decided.targets.items():
            attempt = built.job(uid).attempt
            if attempt is None or attempt.intent is not Intent.RUN or target == attempt.placement:
                continue
            ranks = tuple((kinds[unit.node], unit.node) for unit in attempt.placement.units)
            places = target.by_node().items()
            parts = tuple(((kinds[node], node), len(ids)) for node, ids in places)
            in_memory = units_for(attempt, target) is not None
            assert is_in_place(ranks, parts, target.plan.tensor_parallel) == in_memory
            seen.add(in_memory)
    assert seen == {True, False}
