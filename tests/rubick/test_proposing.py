"""What a longer search proposes, and what a later round makes of it."""

from dataclasses import replace

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, dump_event, load, load_event
from controlplane.domain.event import PolicyChanged, ProposalFound
from controlplane.domain.ids import JobUid, NodeId, SequenceNumber
from controlplane.domain.policy import Decision, Optimality, RememberingPolicy, SearchingPolicy
from controlplane.domain.proposal import (
    PROPOSAL_KEPT_SECONDS,
    Proposal,
    ProposalUse,
    ProposedTarget,
    Verdict,
)
from controlplane.domain.reason import ReasonCode
from controlplane.engine.state import ClusterState
from controlplane.engine.trial import DifferenceKind, Trial, tried
from controlplane.placing.capacity import Capacity
from controlplane.placing.standing import Standings
from controlplane.rubick.board import Board
from controlplane.rubick.policy import Rubick
from controlplane.rubick.proposing import GONE, HAS_IT, IN_PEACE, NO_CHOICE, NO_ROOM
from controlplane.rubick.round import Round
from controlplane.rubick.seat import Displaced
from controlplane.rubick.seating import Menu, Seats
from controlplane.rubick.settings import LIVE, RubickSettings
from controlplane.rubick.table import KEEPS
from headrace.api.plan import ExecutionPlan
from tests.builders import World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job

KNOBS = RubickSettings(
    switch_seconds=1.0,
    cool_down_seconds=10.0,
    attempts=0,
    search_beside_nodes=1000,
    search_beside_gain=0.001,
)
"""A round that displaces nobody at once, so that a search finds what it misses."""


def crowded(settings: RubickSettings = KNOBS, bystanders: int = 0) -> World:
    """Two long jobs have all there is (and so have others on nodes of their own, which run no more
    steps than they need); a short one has come since, and finds no room.
    """
    built = a_cluster().under(Rubick(lambda _: Scaling(), settings))
    for i in range(bystanders):
        built.with_node(a_node(f"b{i}", 1, "gpu")).submit(a_known_job(f"by-{i}", 1, 90_000))
        built.settle()
    built.with_node(a_node("n0", 4, "gpu"), a_node("n1", 4, "gpu"))
    built.submit(*(a_known_job(name, most=4, steps=90_000) for name in ("long-a", "long-b")))
    built.settle().passes(60).submit(a_known_job("short", most=4, steps=500))
    assert (built.held("long-a"), built.held("long-b")) == (4, 4)
    return built


def searched(built: World) -> Proposal | None:
    policy = built.policies["tried"]
    assert isinstance(policy, Rubick)
    snapshot = built.state.snapshot(built.now)
    return policy.apart().search(snapshot, built.state.last_sequence, lambda: False)


def found(built: World) -> Proposal:
    proposal = searched(built)
    assert proposal is not None
    return proposal


def decided(built: World) -> Decision:
    return built.policies["tried"](built.state.snapshot(built.now))


def use_of(built: World) -> ProposalUse:
    use = decided(built).proposal
    assert use is not None
    return use


def test_a_search_finds_what_the_round_missed_and_says_by_how_much() -> None:
    built = crowded()
    proposal = found(built)
    alone = decided(built).optimality
    assert alone is not None
    assert proposal.made_of == built.state.last_sequence
    assert proposal.made_at == built.now
    assert proposal.value_before == pytest.approx(alone.value)
    assert proposal.value_before < proposal.value <= proposal.bound * (1 + 1e-9)
    assert proposal.gain == pytest.approx(proposal.value / proposal.value_before - 1)
    targets = {target.uid: target for target in proposal.targets}
    assert targets[JobUid("short")].parts
    assert set(targets) <= set(built.state.jobs)


def test_what_it_proposes_is_taken_is_told_and_comes_to_rest() -> None:
    built = crowded()
    assert built.cycle().decided.actions == ()
    proposal = found(built)
    outcome = built.tell(ProposalFound(proposal)).cycle()
    assert outcome.proposal is not None
    assert outcome.proposal.verdict is Verdict.TAKEN
    assert outcome.proposal.gained == pytest.approx(proposal.gain)
    assert outcome.optimality is not None
    assert outcome.optimality.value == pytest.approx(proposal.value)
    assert outcome.decided.actions
    for action in outcome.decided.actions:
        assert action.uid in outcome.proposal.jobs
        assert action.reason.message.endswith("as a longer search proposed")  # type: ignore[union-attr]
    built.settle()
    assert built.held("short") > 0
    assert use_of(built).verdict is Verdict.NOTHING_LEFT
    assert built.replayed() == built.state


def test_people_are_told_what_a_search_did_for_a_job_or_why_it_was_left() -> None:
    built = crowded()
    policy = built.policies["tried"]
    assert isinstance(policy, Rubick)
    built.tell(ProposalFound(found(built)))
    told = policy.explanation(built.state.snapshot(built.now), JobUid("short"))
    assert told[-1].startswith("A longer search beside the loop led to this: the round is worth")
    built.cycle()
    told = policy.explanation(built.state.snapshot(built.now), JobUid("short"))
    assert told[-1].startswith("A longer search proposed something else for it, which is left")


def test_a_round_that_is_the_best_is_not_searched_for_nothing() -> None:
    built = crowded()
    built.tell(ProposalFound(found(built))).settle().passes(60)
    assert searched(built) is None


def test_of_jobs_that_are_gone_or_changed_meanwhile_nothing_is_left() -> None:
    built = crowded()
    proposal = found(built)
    built.withdraw("short").settle()
    built.tell(ProposalFound(proposal))
    use = use_of(built)
    assert use.dropped[GONE] == 1
    assert not use.jobs & {JobUid("short")}


def test_a_job_that_was_changed_just_now_is_left_in_peace() -> None:
    built = crowded()
    stale = found(built)
    built.tell(ProposalFound(stale)).settle()
    built.tell(ProposalFound(replace(stale, made_of=SequenceNumber(stale.made_of + 1))))
    use = use_of(built)
    assert (use.verdict, use.jobs) == (Verdict.NOTHING_LEFT, frozenset())
    # Who started is left in peace, and who made room for it did.
    assert use.dropped == {IN_PEACE: 1, HAS_IT: 1}
    built.passes(11)
    assert use_of(built).verdict is Verdict.NOTHING_LEFT
    assert use_of(built).dropped == {HAS_IT: len(stale.targets)}


def test_one_in_peace_is_counted_apart_from_others() -> None:
    built = crowded()
    proposal = found(built)
    built.with_node(a_node("n2", 1, "gpu")).cycle()
    assert built.held("short") == 1, "it began meanwhile"
    built.runs("short").tell(ProposalFound(proposal))
    assert use_of(built).dropped[IN_PEACE] == 1


def test_other_nodes_are_looked_for_where_the_proposed_ones_are_gone() -> None:
    built = crowded()
    proposal = found(built)
    target = next(each for each in proposal.targets if each.uid == "short")
    gone = target.parts[0][0]
    other = replace(target, parts=((NodeId("elsewhere"), sum(n for _, n in target.parts)),))
    assert gone != "elsewhere"
    built.tell(ProposalFound(replace(proposal, targets=(*_others(proposal), other))))
    assert use_of(built).verdict is Verdict.TAKEN
    assert {u.node for u in decided(built).targets[JobUid("short")].units} <= {"n0", "n1"}


def _others(proposal: Proposal) -> tuple[ProposedTarget, ...]:
    return tuple(each for each in proposal.targets if each.uid != "short")


def test_what_is_no_choice_of_the_job_is_dropped() -> None:
    built = crowded()
    wrong = ProposedTarget(JobUid("short"), "other", None, ((NodeId("n0"), 3),))
    proposal = replace(found(built), targets=(wrong,))
    use = use_of(built.tell(ProposalFound(proposal)))
    assert (use.verdict, use.dropped) == (Verdict.NOTHING_LEFT, {NO_CHOICE: 1})


def test_what_is_worth_no_more_is_left_and_the_round_is_as_without() -> None:
    built = crowded().withdraw("short").settle()
    alone = decided(built)
    smaller = ProposedTarget(
        JobUid("long-a"), "gpu", ExecutionPlan(data_parallel=1), ((NodeId("n0"), 1),)
    )
    made = Proposal(built.state.last_sequence, built.now, 2.0, 1.0, 3.0, 1, (smaller,))
    decision = decided(built.tell(ProposalFound(made)))
    assert decision.proposal is not None
    assert decision.proposal.verdict is Verdict.WORTH_NO_MORE
    assert (decision.targets, decision.reasons) == (alone.targets, alone.reasons)
    assert decision.optimality == alone.optimality


def test_who_runs_is_not_stopped_for_nobody() -> None:
    """Alone on half of what it could use, it would rather wait, by its worth; but nobody would run
    in its place.
    """
    built = a_cluster().under(Rubick(lambda _: Scaling(), KNOBS)).with_node(a_node("n0", 4, "gpu"))
    built.submit(a_known_job("a", most=16, steps=20_000)).settle()
    built.with_node(a_node("n1", 4, "gpu"))
    built.submit(a_known_job("b", most=4, steps=20_000)).settle().passes(60)
    stop = ProposedTarget(JobUid("a"))
    made = Proposal(built.state.last_sequence, built.now, 1.0, 0.5, 2.0, 1, (stop,))
    decision = decided(built.tell(ProposalFound(made)))
    assert JobUid("a") in decision.targets


def test_a_queue_that_may_borrow_keeps_searches_out() -> None:
    built = crowded()
    proposal = found(built)
    built.with_queue("q", quota=2, borrowing=1).tell(ProposalFound(proposal))
    use = use_of(built)
    assert use.verdict is Verdict.NOT_NOW
    assert "while queues may borrow" in use.text
    assert searched(built) is None


def test_too_little_gain_is_no_proposal() -> None:
    gain = found(crowded(bystanders=20)).gain
    assert 0.01 < gain < 0.9
    more, less = (replace(KNOBS, search_beside_gain=gain * each) for each in (1.01, 0.99))
    assert searched(crowded(more, bystanders=20)) is None
    assert searched(crowded(less, bystanders=20)) is not None


def test_where_it_is_turned_off_nothing_is_searched_and_no_proposal_is_looked_at() -> None:
    built = crowded()
    proposal = found(built)
    built.with_settings(knobs=(("rubick.search_beside_nodes", 0.0),))  # type: ignore[arg-type]
    assert searched(built) is None
    assert decided(built.tell(ProposalFound(proposal))).proposal is None


def test_whoever_stops_it_has_no_answer() -> None:
    built = crowded()
    policy = built.policies["tried"]
    assert isinstance(policy, Rubick)
    snapshot = built.state.snapshot(built.now)
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 1

    assert policy.search(snapshot, built.state.last_sequence, stopped) is None
    assert len(asked) > 1


def test_equal_states_are_searched_equally() -> None:
    built = crowded()
    assert found(built) == found(built)


def test_whether_it_is_worth_a_search_depends_on_the_gap_and_on_what_people_set() -> None:
    policy = Rubick(lambda _: Scaling(), replace(KNOBS, search_beside_gain=0.01))
    near, far = Optimality(99.5, 100.0, {}), Optimality(98.0, 100.0, {})
    assert not policy.wants_search({}, near)
    assert policy.wants_search({}, far)
    assert policy.wants_search({"rubick.search_beside_gain": 0.001}, near)
    assert not policy.wants_search({"rubick.search_beside_nodes": 0.0}, far)
    assert not Rubick(lambda _: Scaling()).wants_search({}, far), "off where nobody set it"
    assert Rubick(lambda _: Scaling(), LIVE).wants_search({}, far), "on in a live cluster"


def test_rubick_is_what_a_searcher_looks_for() -> None:
    policy = Rubick(lambda _: Scaling(), KNOBS)
    assert isinstance(policy, SearchingPolicy)
    assert isinstance(policy, RememberingPolicy)


def test_a_proposal_survives_the_log_and_the_checkpoint_and_the_newest_counts() -> None:
    built = crowded()
    proposal = found(built)
    newer = replace(proposal, made_of=SequenceNumber(proposal.made_of + 1))
    event = ProposalFound(proposal, built.now)
    assert load_event(dump_event(event)) == event
    built.tell(event, ProposalFound(newer))
    assert built.state.proposal == newer
    assert load(dump(built.state, ClusterState), ClusterState) == built.state
    assert built.replayed() == built.state


def test_it_is_forgotten_when_events_tell_that_it_is_old() -> None:
    built = crowded()
    proposal = found(built)
    built.tell(ProposalFound(proposal)).passes(PROPOSAL_KEPT_SECONDS).lose("n1")
    assert built.state.proposal is not None
    built.passes(1).lose("n0")
    assert built.state.proposal is None
    assert built.replayed() == built.state
    late = replace(proposal, made_at=Instant(proposal.made_at - 1))
    assert built.tell(ProposalFound(late)).state.proposal is None


def test_it_is_forgotten_when_people_change_the_settings() -> None:
    built = crowded()
    built.tell(ProposalFound(found(built))).with_settings(period_seconds=7.0)
    assert built.state.proposal is None


def test_trying_settings_tells_what_setting_them_does_while_a_proposal_is_remembered() -> None:
    """The patience changes nothing here, but the proposal is forgotten with the settings."""
    built = crowded()
    built.tell(ProposalFound(found(built)))
    knobs = tuple(
        sorted({**dict(built.state.settings.knobs), "rubick.patience_share": 0.31}.items())
    )
    changed = replace(built.state.settings, knobs=knobs)
    before = decided(built).targets
    told = {
        each.record.job.name: each.kind
        for each in tried(built.state, built.now, built.policies, changed).differences
    }
    assert tried(built.state, built.now, built.policies, built.state.settings) == Trial()
    after = decided(built.tell(PolicyChanged(changed, built.now))).targets
    assert {uid: place.accelerator_count for uid, place in before.items()} == {
        "long-a": 4,
        "short": 4,
    }
    assert {uid: place.accelerator_count for uid, place in after.items()} == {
        "long-a": 4,
        "long-b": 4,
    }
    assert told == {"long-b": DifferenceKind.STAYS, "short": DifferenceKind.WAITS}


def test_it_is_not_seen_any_more_once_it_is_old_though_nothing_happened() -> None:
    built = crowded()
    built.tell(ProposalFound(found(built))).passes(PROPOSAL_KEPT_SECONDS)
    assert built.state.snapshot(built.now).proposal is not None
    assert built.passes(1).state.snapshot(built.now).proposal is None
    assert decided(built).proposal is None


def test_who_makes_room_is_told_so_and_that_a_search_led_to_it() -> None:
    built = a_cluster().under(Rubick(lambda _: Scaling(layouts=((4,),)), KNOBS))
    built.with_node(a_node("n0", 4, "gpu")).submit(a_known_job("long", most=4, steps=90_000))
    built.settle().passes(60).submit(a_known_job("short", most=4, steps=500))
    built.tell(ProposalFound(found(built))).cycle()
    why = built.why("long")
    assert why.code is ReasonCode.PREEMPTED
    assert "makes room: others gain more by it" in why.message
    assert why.message.endswith("as a longer search proposed")
    assert NO_ROOM not in use_of(built).dropped


def test_what_was_dealt_anew_is_not_told_to_make_room_for_whom_it_did_before() -> None:
    """A search that deals anew may give the job for which another one was put off something else,
    or nothing: then nobody makes room for it.
    """
    built = crowded(bystanders=1)
    snapshot, menu = built.state.snapshot(built.now), Menu()
    menu.begin(Scaling(), snapshot)
    now = Standings(snapshot, possible=lambda *_: True, chooses_plans=True)
    seats = Seats(snapshot, now.jobs, now.empty, menu, KNOBS).every
    dealing = Round(seats, Board(Capacity(snapshot).by_node(), {}), KNOBS, {})
    dealing.deal()
    by_uid = {seat.uid: seat for seat in seats}
    anew = [by_uid[JobUid(uid)] for uid in ("long-a", "long-b", "short")]
    for uid, by in (("long-b", "short"), ("by-0", "short"), ("gone", "by-0")):
        dealing.displaced[JobUid(uid)] = Displaced(JobUid(uid), JobUid(by), 1.0)
    worthless = tuple(KEEPS if seat.held is not None else None for seat in anew)
    assert not dealing.adopt(anew, worthless)
    assert len(dealing.displaced) == 3
    dealing._give(by_uid[JobUid("long-b")], None)  # It made room in this round.
    best = max(range(len(anew[2].choices.every)), key=lambda i: anew[2].worths.of_choices[i])
    assert dealing.adopt(anew, (KEEPS, None, best))
    assert set(dealing.displaced) == {"gone"}
    assert anew[1].given is None
    assert anew[1].uid in dealing.put_off
