"""Event sequences in, history out."""

from dataclasses import replace

import pytest

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    CheckpointMissed,
    JobProgressed,
    NodeDrained,
    PlanRefused,
)
from controlplane.domain.ids import AcceleratorId, Attempt, JobUid, NodeId
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Outcome, Progress
from headrace.cli.report_facts import EventFact, JobFact, LossFact, ReportFacts
from headrace.cli.report_fold import history_of, in_words, replayed
from headrace.cli.report_model import Block, History, series_of
from tests.unit.report.logbook import FOUR, LIVE, Logbook, at, the_bad_day, the_demo


def lane(history: History, node: str, slot: str) -> list[Block]:
    return [one for one in history.blocks if (one.node, one.accelerator) == (node, slot)]


def test_a_job_that_shrinks_and_grows_is_three_blocks_beside_the_other_job() -> None:
    history = history_of(the_demo().facts(122))
    kept = [(one.uid, one.attempt, one.plan) for one in lane(history, "node-a", "slot-0")]
    lent = [(one.uid, one.attempt, one.plan) for one in lane(history, "node-b", "slot-1")]
    assert kept == [("u-gpt", 1, "dp4"), ("u-gpt", 2, "pp2.1f1b-ga4"), ("u-gpt", 3, "dp4")]
    assert lent == [("u-gpt", 1, "dp4"), ("u-vit", 1, "dp2"), ("u-gpt", 3, "dp4")]
    assert [(one.start_ns, one.end_ns) for one in lane(history, "node-b", "slot-1")] == [
        (at(1.1), at(40.2)),
        (at(40.3), at(71)),
        (at(78.5), at(121)),
    ]
    assert not any(one.open for one in history.blocks)
    assert [(one.node, one.accelerator) for one in history.lanes] == list(FOUR)


def test_a_reconfiguration_costs_from_the_decision_to_the_next_first_step() -> None:
    history = history_of(the_demo().facts(122))
    assert [
        (one.before.plan, one.then.plan, one.planned, one.at_ns, one.cost_ns)
        for one in history.transitions
    ] == [
        ("dp4", "pp2.1f1b-ga4", True, at(38.1), at(47.2) - at(38.1)),
        ("pp2.1f1b-ga4", "dp4", True, at(71.1), at(87) - at(71.1)),
    ]
    assert (
        history.transitions[0].why
        == "shrunk for others: vit arrived: each of 2 jobs gets 2 of 4 accelerators"
    )
    assert [one.stopped_at_steps for one in history.attempts[:2]] == [(120,), (180,)]


def test_waiting_and_accelerator_time_add_up() -> None:
    gpt, vit = history_of(the_demo().facts(122)).jobs
    assert gpt.waiting_ns == at(1.1) - at(1)  # the gaps of its reconfigurations are their cost
    assert vit.waiting_ns == at(40.3) - at(38)
    assert vit.held_ns == 2 * (at(71) - at(40.3))
    assert gpt.held_ns == 4 * (at(40.2) - at(1.1)) + 2 * (at(78.4) - at(40.3)) + 4 * (
        at(121) - at(78.5)
    )


def test_loss_marks_stand_between_the_steps_and_name_both_plans() -> None:
    series = history_of(the_demo().facts(122)).losses[0]
    assert [(one.step, one.planned, one.before, one.after) for one in series.marks] == [
        (120.5, True, "dp4", "pp2.1f1b-ga4"),
        (180.5, True, "pp2.1f1b-ga4", "dp4"),
    ]
    assert [point.step for point in series.counted] == list(range(1, 301))
    assert series.superseded == ()


def test_a_failure_and_a_lost_node_are_retries_with_their_reasons() -> None:
    history = history_of(the_bad_day().facts(140))
    assert [(one.planned, one.then.plan) for one in history.transitions] == [
        (False, "dp4"),
        (False, "dp2-ga2"),
    ]
    assert "illegal memory access" in history.transitions[0].why
    assert history.transitions[1].why == "node node-b was lost"
    # The failed job waits out its back-off, which is waiting, and no reconfiguration.
    assert history.jobs[0].waiting_ns == round((0.5 + 5.5 + 5.0) * SECOND)
    assert [one.end_ns for one in lane(history, "node-b", "slot-0")] == [at(31), at(90)]
    assert [one.end_ns for one in lane(history, "node-b", "slot-1")] == [at(31.5), at(90)]
    assert [(one.kind, one.node, one.start_ns, one.end_ns) for one in history.bands] == [
        ("lost", "node-b", at(90), at(132))
    ]


def test_steps_done_again_after_a_retry_count_once() -> None:
    series = history_of(the_bad_day().facts(140)).losses[0]
    assert [point.step for point in series.counted] == list(range(1, 261))
    assert [point.attempt for point in series.counted[98:102]] == [1, 1, 2, 2]
    again = [(point.attempt, point.step) for point in series.superseded]
    assert again == [(1, step) for step in range(101, 131)] + [
        (2, step) for step in range(201, 221)
    ]
    assert [(one.step, one.planned) for one in series.marks] == [(100.5, False), (200.5, False)]


def test_what_still_runs_ends_now_and_is_open() -> None:
    history = history_of(the_bad_day().facts(140))
    last = lane(history, "node-a", "slot-1")[-1]
    assert (last.open, last.end_ns, last.outcome) == (True, at(140), "")
    assert history.end_ns == at(140)
    assert history.jobs[0].plan == "dp2-ga2"


def test_an_attempt_that_never_trained_has_no_cost_and_names_no_plan_of_its_own() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u")
    book.decide(1, book.starting("u", 1, FOUR))
    book.train("u", 1, 5, 10, range(1, 11))
    book.decide(11, book.stopping("u", 1, "a job arrived"))
    book.exit(12, "u", 1, Outcome.STOPPED, 10)
    book.decide(13, book.starting("u", 2, FOUR[:2]))
    book.exit(14, "u", 2, Outcome.FAILED, message="rank 0 exited with 1")
    book.decide(20, book.starting("u", 3, FOUR[:1]))
    book.train("u", 3, 25, 30, range(11, 21))
    history = history_of(book.facts(31))
    assert [(one.planned, one.cost_ns) for one in history.transitions] == [
        (True, None),
        (False, at(25) - at(14)),
    ]
    # One passage of the curve covers both; it is as good as its worst part.
    (mark,) = history.losses[0].marks
    assert (mark.before, mark.after, mark.planned, mark.step) == ("dp4", "dp1", False, 10.5)


def test_a_stop_in_which_a_rank_dies_is_no_reconfiguration() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u")
    book.decide(1, book.starting("u", 1, FOUR[:2]))
    book.decide(5, book.stopping("u", 1, "a job arrived"))
    book.exit(6, "u", 1, Outcome.STOPPED, 3, (0,))
    book.exit(7, "u", 1, Outcome.FAILED, 0, (1,), "rank 1 was killed")
    book.decide(9, book.starting("u", 2, FOUR[:2]))
    (passage,) = history_of(book.facts(10)).transitions
    assert (passage.planned, passage.at_ns, passage.why) == (False, at(7), "rank 1 was killed")


def test_a_decision_is_read_after_the_last_event_it_had_seen() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u")
    seen = len(book.events)
    # The node is lost while the loop decides: the start is logged after that, yet decided before.
    book.lose(1, "node-b")
    book.decide(1.1, book.starting("u", 1, FOUR), folded_up_to=seen)
    assert [event.body["kind"] for event in replayed(book.events)][-2:] == [
        "CycleDecided",
        "NodeLost",
    ]
    history = history_of(book.facts(5))
    assert {(one.node, one.open) for one in history.blocks} == {("node-a", True), ("node-b", False)}
    assert all(one.end_ns >= one.start_ns - SECOND for one in history.blocks)


def test_health_and_drain_are_bands_of_their_lanes() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u")
    slot = AcceleratorId("slot-1")
    book.write(AcceleratorHealthChanged(NodeId("node-a"), slot, "Xid 79", at=at(2)))
    book.write(NodeDrained(NodeId("node-b"), drained=True, at=at(3)))
    book.write(NodeDrained(NodeId("node-b"), drained=False, at=at(4)))
    book.write(AcceleratorHealthChanged(NodeId("node-a"), slot, "", at=at(6)))
    bands = history_of(book.facts(9)).bands
    assert [(one.node, one.accelerator, one.kind, one.note) for one in bands] == [
        ("node-a", "slot-1", "unhealthy", "Xid 79"),
        ("node-b", "", "drained", "drained"),
    ]
    assert [(one.start_ns, one.end_ns) for one in bands] == [(at(2), at(6)), (at(3), at(4))]


def test_a_log_whose_beginning_was_pruned_uses_what_the_control_plane_counted() -> None:
    book = the_demo()
    facts = book.facts(122)
    later = tuple(event for event in facts.events if event.sequence > 60)
    gpt = replace(facts.jobs[0], held_accelerator_seconds=999.0)
    history = history_of(replace(facts, events=later, jobs=(gpt, *facts.jobs[1:])))
    assert history.first_sequence == 61
    assert {job.uid for job in history.jobs} == {"u-gpt", "u-vit"}
    job = next(one for one in history.jobs if one.uid == "u-gpt")
    assert (job.submitted_ns, job.held_ns) == (None, 999 * SECOND)


def test_unchanged_reasons_are_told_once_and_repeated_registrations_not_at_all() -> None:
    book = the_demo()
    before = history_of(book.facts(122)).lines
    book.register(123)
    book.decide(124)
    assert history_of(book.facts(125)).lines == before
    waits = [line for line in before if line.what == "waits"]
    assert [(line.subject, line.why, line.decided) for line in waits] == [
        ("vit", "2 accelerators that gpt holds are being released", True)
    ]


def test_a_job_that_fails_for_good_stops_waiting() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u")
    book.decide(1, book.starting("u", 1, FOUR))
    book.exit(3, "u", 1, Outcome.FAILED, message="no such file")
    book.decide(4, book.failing("u"))
    book.submit(50, "later")
    book.jobs["u"] = JobFact("u", "default", "u", "Failed")
    job = history_of(book.facts(60)).jobs[0]
    assert job.waiting_ns == round(2 * SECOND)  # before its start, and until it was given up


def test_a_job_whose_retries_are_used_up_stops_waiting() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u")
    book.decide(1, book.starting("u", 1, FOUR))
    book.exit(3, "u", 1, Outcome.FAILED, message="no such file")
    book.submit(50, "later")
    book.jobs["u"] = JobFact("u", "default", "u", "Failed", finished_ns=at(3))
    job = history_of(book.facts(60)).jobs[0]
    assert job.waiting_ns == round(1 * SECOND)


def test_an_empty_log_is_an_empty_history() -> None:
    history = history_of(ReportFacts())
    assert (history.blocks, history.jobs, history.lanes) == ((), (), ())
    assert history.start_ns == history.end_ns == Instant(0)


def test_events_of_a_newer_control_plane_are_passed_over() -> None:
    facts = the_demo().facts(122)
    strange = EventFact(len(facts.events) + 1, {"kind": "MoonRose", "at": at(121.5)})
    more = history_of(replace(facts, events=(*facts.events, strange)))
    assert more.blocks == history_of(facts).blocks


def test_the_latest_attempt_counts_whatever_the_order_of_the_points() -> None:
    points = [LossFact(2, 1.5, 2), LossFact(1, 2.0, 1), LossFact(2, 9.0, 1)]
    series = series_of("u", points, ())
    assert [(one.step, one.loss) for one in series.counted] == [(1, 2.0), (2, 1.5)]
    assert [(one.step, one.loss) for one in series.superseded] == [(2, 9.0)]
    assert [(one.before, one.planned) for one in series.marks] == [("", False)]


def test_codes_read_as_words() -> None:
    assert in_words("ShrunkForOthers") == "shrunk for others"


def test_ranks_that_come_and_go_are_parts_of_one_attempt() -> None:
    history = history_of(the_demo(live=LIVE).facts(122))
    kept, lent = lane(history, "node-a", "slot-0"), lane(history, "node-b", "slot-1")
    assert [(one.uid, one.attempt, one.part, one.unit, one.plan) for one in kept] == [
        ("u-gpt", 1, 1, 0, "dp4"),
        ("u-gpt", 1, 2, 0, "pp2.1f1b-ga4"),
        ("u-gpt", 1, 3, 0, "dp4"),
    ]
    assert [(one.uid, one.attempt, one.part, one.unit, one.plan) for one in lent] == [
        ("u-gpt", 1, 1, 3, "dp4"),
        ("u-vit", 1, 1, 1, "dp2"),
        ("u-gpt", 1, 3, 5, "dp4"),
    ]
    assert [(one.start_ns, one.end_ns) for one in kept] == [
        (at(1.1), at(41)),
        (at(41), at(78.5)),
        (at(78.5), at(121)),
    ]
    # Whoever leaves holds it until it is gone, whoever comes from the order on.
    assert [(one.start_ns, one.end_ns, one.leaving_ns, one.outcome) for one in lent] == [
        (at(1.1), at(40.2), at(38.1), "Left"),
        (at(40.3), at(71), None, "Succeeded"),
        (at(71.1), at(121), None, "Succeeded"),
    ]
    spans = [one for one in history.attempts if one.uid == "u-gpt"]
    assert [(one.place, one.plan, one.accelerators) for one in spans] == [
        ((1, 1), "dp4", 4),
        ((1, 2), "pp2.1f1b-ga4", 2),
        ((1, 3), "dp4", 4),
    ]
    assert [one.stopped_at_steps for one in spans] == [(120,), (), ()]
    assert [one.outcomes for one in spans] == [(), (), ("Succeeded",)]


def test_a_change_in_memory_costs_what_the_ranks_measured() -> None:
    history = history_of(the_demo(live=LIVE).facts(122))
    assert [
        (one.planned, one.in_memory, one.at_ns, one.cost_ns, one.price)
        for one in history.transitions
    ] == [
        (True, True, at(41), 1_250_000_000, "in memory, stood still 1.2 s"),
        (True, True, at(78.5), 750_000_000, "in memory, stood still 0.8 s"),
    ]
    assert history.transitions[0].why.endswith(
        "vit arrived: each of 2 jobs gets 2 of 4 accelerators"
    )
    (restart, *_) = history_of(the_demo().facts(122)).transitions
    assert (restart.in_memory, restart.price) == (False, "by a restart in 9.1 s")
    gpt, vit = history.jobs
    assert (gpt.waiting_ns, vit.waiting_ns) == (at(1.1) - at(1), at(40.3) - at(38))
    kept, lent = at(121) - at(1.1), at(40.2) - at(1.1) + at(121) - at(71.1)
    assert gpt.held_ns == 2 * kept + 2 * lent


@pytest.mark.parametrize("live", [(True, True), (True, False), (False, True), (False, False)])
def test_a_loss_is_marked_where_the_plan_changes_in_whatever_way(live: tuple[bool, bool]) -> None:
    series = history_of(the_demo(live=live).facts(122)).losses[0]
    assert [
        (one.step, one.planned, one.in_memory, one.before, one.after) for one in series.marks
    ] == [
        (120.5, True, live[0], "dp4", "pp2.1f1b-ga4"),
        (180.5, True, live[1], "pp2.1f1b-ga4", "dp4"),
    ]


def shrinking() -> Logbook:
    """A job on four accelerators that was just asked to leave two."""
    book = Logbook()
    book.register()
    book.submit(0, "u")
    book.decide(1, book.starting("u", 1, FOUR))
    book.train("u", 1, 5, 10, range(1, 11))
    book.decide(11, book.changing("u", 1, "dp2", "a job arrived", keeping=(0, 1)))
    return book


def growing() -> Logbook:
    """A job on two accelerators that was just asked to take two more."""
    book = Logbook()
    book.register()
    book.submit(0, "u")
    book.decide(1, book.starting("u", 1, FOUR[:2]))
    book.train("u", 1, 5, 10, range(1, 11))
    book.decide(11, book.changing("u", 1, "dp4", "a job left", keeping=(0, 1), joining=FOUR[2:]))
    return book


def test_until_it_is_told_newcomers_hold_and_do_not_train() -> None:
    history = history_of(growing().facts(12))
    assert [(one.place, one.accelerators) for one in history.attempts] == [((1, 1), 2)]
    assert [(one.part, one.plan, one.open) for one in lane(history, "node-b", "slot-0")] == [
        (2, "dp4", True)
    ]
    assert history.transitions == ()


def test_a_unit_that_cannot_join_leads_to_a_restart_and_no_retry() -> None:
    book = growing()
    book.exit(12, "u", 1, Outcome.FAILED, 0, (3,), "no address")
    book.decide(13, book.stopping("u", 1, "unit 3 could not join"))
    book.exit(14, "u", 1, Outcome.STOPPED, 10, (0, 1))
    book.exit(15, "u", 1, Outcome.STOPPED, 0, (2,))
    book.decide(16, book.starting("u", 2, FOUR))
    book.train("u", 2, 20, 25, range(11, 21))
    history = history_of(book.facts(26))
    (passage,) = history.transitions
    assert (passage.planned, passage.in_memory, passage.price) == (
        True,
        False,
        "by a restart in 7.0 s",
    )
    before = history.attempts[0]
    assert (before.outcomes, before.stopped_at_steps, before.end_ns) == (
        ("Stopped",),
        (10,),
        at(15),
    )
    told = [(line.what, line.why) for line in history.lines]
    assert ("lets unit 3 of attempt 1 go, which has not joined", "no address") in told


def test_an_attempt_is_over_when_those_that_leave_are_the_last() -> None:
    book = shrinking()
    book.decide(12, book.stopping("u", 1, "suspended"))
    book.exit(13, "u", 1, Outcome.STOPPED, 12, (0, 1))
    book.exit(14, "u", 1, Outcome.STOPPED, 12, (2, 3))
    (span,) = history_of(book.facts(20)).attempts
    assert (span.end_ns, span.stopped_at_steps) == (at(14), (12,))


def test_one_that_dies_before_it_has_left_is_a_failure_and_afterwards_is_not_missed() -> None:
    early, late = shrinking(), shrinking()
    early.exit(12, "u", 1, Outcome.LOST, 0, (3,), "killed")
    late.change(11.5, "u", 1, ("dp4", "dp2"), 10, 0.5)
    late.exit(12, "u", 1, Outcome.LOST, 0, (3,), "killed")
    assert history_of(early.facts(13)).attempts[-1].broke
    assert not any(span.broke for span in history_of(late.facts(13)).attempts)
    assert not any("loses" in line.what for line in history_of(late.facts(13)).lines)


def test_a_failure_after_a_change_is_a_retry_from_the_later_plan() -> None:
    book = shrinking()
    book.exit(11.2, "u", 1, Outcome.STOPPED, 10, (2, 3))
    book.change(12, "u", 1, ("dp4", "dp2"), 10, 0.5)
    book.train("u", 1, 13, 20, range(11, 21))
    book.exit(21, "u", 1, Outcome.FAILED, 0, (0, 1), "killed")
    book.decide(22, book.starting("u", 2, FOUR[:1]))
    book.train("u", 2, 25, 30, range(6, 31))
    history = history_of(book.facts(31))
    change, retry = history.transitions
    assert (change.planned, retry.planned, retry.before.plan, retry.why) == (
        True,
        False,
        "dp2",
        "killed",
    )
    # The steps around the change were done again, so one mark stands for both.
    (mark,) = history.losses[0].marks
    assert (mark.step, mark.planned, mark.in_memory, mark.before, mark.after) == (
        5.5,
        False,
        False,
        "dp4",
        "dp1",
    )


def test_a_change_that_is_told_after_the_stop_leaves_it_a_planned_one() -> None:
    book = shrinking()
    book.decide(12, book.stopping("u", 1, "not taken up"))
    book.exit(12.5, "u", 1, Outcome.STOPPED, 10, (2, 3))
    book.exit(12.6, "u", 1, Outcome.STOPPED, 14, (1,))
    book.change(13, "u", 1, ("dp4", "dp2"), 10, 0.5)
    book.exit(14, "u", 1, Outcome.STOPPED, 14, (0,))
    book.decide(15, book.starting("u", 2, FOUR[:2]))
    history = history_of(book.facts(16))
    assert [(one.planned, one.in_memory) for one in history.transitions] == [
        (True, True),
        (True, False),
    ]
    assert [one.stopped_at_steps for one in history.attempts[:2]] == [(10,), (14,)]


def test_a_change_of_plan_on_the_same_accelerators_is_two_blocks_of_one_attempt() -> None:
    book, two = Logbook(), FOUR[:2]
    book.register()
    book.submit(1, "u")
    book.decide(2, book.starting("u", 1, two, "dp2"))
    book.train("u", 1, 5, 20, range(1, 100))
    book.decide(21, book.changing("u", 1, "tp2", "dp2 -> tp2"))
    for _ in range(2):  # told twice
        book.change(22, "u", 1, ("dp2", "tp2"), 99, 0.5)
    book.write(PlanRefused(JobUid("u"), Attempt(1), "dp2", "too big", NodeId("node-a"), at(25)))
    book.decide(30, book.stopping("u", 1, "others came"))
    book.exit(31, "u", 1, Outcome.STOPPED, 120)
    book.decide(32, book.starting("u", 2, FOUR[:1]))
    book.train("u", 2, 35, 40, range(121, 130))
    history = history_of(book.facts(41))
    assert [(one.attempt, one.plan, one.start_ns) for one in lane(history, "node-a", "slot-0")] == [
        (1, "dp2", at(2)),
        (1, "tp2", at(22)),
        (2, "dp1", at(32)),
    ]
    assert [(one.before.plan, one.then.plan, one.in_memory) for one in history.transitions] == [
        ("dp2", "tp2", True),
        ("tp2", "dp1", False),
    ]
    told = [(line.what, line.why) for line in history.lines]
    assert ("is asked to go on in attempt 1 as tp2", "dp2 -> tp2") in told
    assert told.count(("goes over from dp2 to tp2 after step 99", "it stood still for 0.50 s")) == 1
    assert ("cannot go over to dp2", "too big") in told


def test_a_growth_that_is_given_up_is_no_change() -> None:
    book = Logbook()
    book.register()
    book.submit(1, "u")
    book.decide(2, book.starting("u", 1, FOUR[:2], "dp2"))
    book.train("u", 1, 5, 20, range(1, 100))
    book.decide(21, book.changing("u", 1, "dp4", "it grows", keeping=(0, 1), joining=FOUR[2:]))
    book.exit(25, "u", 1, Outcome.FAILED, 0, (3,), "no room")
    book.decide(26, book.changing("u", 1, "dp2", "unit 3 could not join", keeping=(0, 1)))
    book.exit(27, "u", 1, Outcome.STOPPED, 0, (2,))
    book.change(28, "u", 1, ("dp2", "dp2"), 120, 0)
    book.train("u", 1, 28, 40, range(121, 130))
    history = history_of(book.facts(41))
    assert history.transitions == ()
    assert [(one.plan, one.accelerators) for one in history.attempts] == [("dp2", 2)]
    told = [(line.what, line.why) for line in history.lines]
    assert ("lets unit 3 of attempt 1 go, which has not joined", "no room") in told
    assert told.count(("goes on as dp2, as it did", "")) == 1


def test_a_gap_in_the_checkpoints_is_two_lines_however_many_are_missed() -> None:
    book = Logbook()
    book.register()
    book.submit(1, "u")
    book.decide(2, book.starting("u", 1, FOUR[:2], "dp2"))
    full = Reason(ReasonCode.CHECKPOINT_STORE_FULL, "no space left on device")

    def says(when: float, missed: int = 0, saved: int = 0, step: int = 0) -> None:
        uid, first, node = JobUid("u"), Attempt(1), NodeId("node-a")
        if missed:
            book.write(CheckpointMissed(uid, first, missed, full, node, at(when)))
        else:
            progress = Progress(step, saved, 1.0, 0.1, at(when))
            book.write(JobProgressed(uid, first, progress, at=at(when)))

    says(10, saved=100, step=150)
    says(11, missed=100)  # told late: there is one
    says(20, missed=200)
    says(30, missed=300)
    says(31, saved=100, step=310)
    says(40, saved=400, step=410)
    says(50, saved=500, step=510)
    says(60, missed=600)
    told = [
        (line.what, line.why, (line.at_ns - at(0)) / SECOND)
        for line in history_of(book.facts(70)).lines
        if "checkpoint" in line.what
    ]
    assert told == [
        ("trains on without a checkpoint of step 200", "no space left on device", 20),
        ("has a checkpoint again, of step 400", "2 before it were missed", 40),
        ("trains on without a checkpoint of step 600", "no space left on device", 60),
    ]
