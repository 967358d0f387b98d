"""The demo's verdict: it must pass a right history and name what is wrong in a wrong one."""

import json
import random
from dataclasses import replace

import pytest

from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Outcome
from headrace.api.generated import admin_pb2
from headrace.cli.demo_checks import Check, Expected, checked, jump_at
from headrace.cli.report_facts import EventFact, LossFact, ReportFacts
from headrace.cli.report_fold import history_of
from tests.unit.report.logbook import FOUR, Logbook, at, the_bad_day

EXPECTED = Expected(
    elastic="u-gpt",
    promised="u-llama",
    guest="u-vit",
    asked_for=2,
    changes_kind=True,
    policy="rubick",
    refused=0,
)
(
    SUCCEEDED,
    PLANNED,
    KINDS,
    PROMISE,
    LEARNT,
    RULES,
    GPT_STEPS,
    LLAMA_STEPS,
    VIT_STEPS,
    CONTINUOUS,
    EXCLUSIVE,
) = range(11)
HALF = "pp2.1f1b-ga4"


def the_three(half: str = HALF, *, live: bool = True, grows: bool = True) -> Logbook:
    """What the demo is meant to be: gpt on four, on two beside llama, then vit; on four again.

    Args:
        half: The plan on two.
        live: Whether gpt makes room in memory; else by a restart.
        grows: Whether gpt grows again.
    """
    book = Logbook()
    book.register()
    book.submit(1, "u-gpt", "gpt")
    book.decide(1.1, book.starting("u-gpt", 1, FOUR))
    book.train("u-gpt", 1, 9.5, 40, range(1, 121))
    book.submit(38, "u-llama", "llama")
    attempt = _makes_room(book, half, live=live)
    book.decide(40.3, book.starting("u-llama", 1, FOUR[2:]))
    book.submit(45, "u-vit", "vit")
    waits = Reason(ReasonCode.WAITING_FOR_ACCELERATORS, "wants 1 accelerator, 0 free", 1, 0)
    book.decide(45.1, reasons=(("u-vit", waits),))
    book.train("u-gpt", attempt, 47.2, 88, range(121, 181), seed=2)
    book.train("u-llama", 1, 48.2, 60, range(1, 301))
    book.exit(61, "u-llama", 1, Outcome.SUCCEEDED, 300)
    book.decide(61.1, book.starting("u-vit", 1, FOUR[2:3]))
    book.train("u-vit", 1, 65, 85, range(1, 301))
    book.exit(86, "u-vit", 1, Outcome.SUCCEEDED, 300)
    units: tuple[int, ...] = (0, 1)
    if grows:
        why = "vit finished: its accelerators are free"
        order = book.changing("u-gpt", attempt, "dp4", why, keeping=(0, 1), joining=FOUR[2:])
        book.decide(86.1, order)
        book.change(92, "u-gpt", attempt, (half, "dp4"), 180, 0.75)
        units = (0, 1, *range(len(book.holds["u-gpt", attempt]))[-2:])
    book.train("u-gpt", attempt, 93, 120, range(181, 301), seed=3)
    book.exit(121, "u-gpt", attempt, Outcome.SUCCEEDED, 300, units)
    for uid, job in list(book.jobs.items()):
        ended = replace(job, stage="Succeeded", step=300, finished_ns=at(121))
        book.jobs[uid] = ended
    return book


def _makes_room(book: Logbook, half: str, *, live: bool) -> int:
    """The attempt in which gpt goes on beside llama."""
    why = "makes room for llama"
    if live:
        book.decide(38.1, book.changing("u-gpt", 1, half, why, keeping=(0, 1)))
        book.exit(40.2, "u-gpt", 1, Outcome.STOPPED, 120, (2, 3))
        book.change(41, "u-gpt", 1, ("dp4", half), 120, 1.25)
        return 1
    book.decide(38.1, book.stopping("u-gpt", 1, why))
    book.exit(40.2, "u-gpt", 1, Outcome.STOPPED, 120)
    book.decide(40.25, book.starting("u-gpt", 2, FOUR[:2], half))
    return 2


def a_fit(model: str, *uids: str, rows: int = 1) -> admin_pb2.Fit:
    compared = [admin_pb2.ComparedRow(uid=uid, measured_seconds=0.1) for uid in uids]
    return admin_pb2.Fit(model_type=f"{model} fp32 batch 16x64", rows=rows, compared=compared)


FITS = (a_fit("gpt2-small", "u-gpt", "u-gpt", rows=2), a_fit("llama-tiny", "u-llama"))
ALL_FITS = (*FITS, a_fit("vit-tiny", "u-vit"))


def verdict(
    facts: ReportFacts,
    expected: Expected = EXPECTED,
    fits: tuple[admin_pb2.Fit, ...] = ALL_FITS,
) -> list[Check]:
    return checked(history_of(facts), dict(facts.losses), fits, expected)


def failed(
    facts: ReportFacts,
    expected: Expected = EXPECTED,
    fits: tuple[admin_pb2.Fit, ...] = ALL_FITS,
) -> list[int]:
    checks = verdict(facts, expected, fits)
    return [place for place, check in enumerate(checks) if not check.holds]


def with_gpt_losses(facts: ReportFacts, losses: list[LossFact]) -> ReportFacts:
    return replace(facts, losses={**facts.losses, "u-gpt": tuple(losses)})


def test_what_the_demo_is_meant_to_show_passes_and_tells_what_was_seen() -> None:
    checks = verdict(the_three().facts(122))
    assert [check.holds for check in checks] == [True] * 11
    found = [check.found for check in checks]
    assert found[SUCCEEDED] == "gpt Succeeded, llama Succeeded, vit Succeeded"
    assert found[PLANNED] == (
        "2 changes: gpt dp4 to pp2.1f1b-ga4 in memory, stood still 1.2 s; "
        "gpt pp2.1f1b-ga4 to dp4 in memory, stood still 0.8 s"
    )
    assert found[KINDS] == (
        "dp4 (data parallel over 4), then pp2.1f1b-ga4 (a pipeline of 2 ranks (1f1b), "
        "4 micro-batches), then dp4 (data parallel over 4)"
    )
    assert found[PROMISE] == "one attempt under dp2"
    assert found[LEARNT] == (
        "gpt: gpt2-small from 2 plans, llama: llama-tiny from 1 plan, vit: vit-tiny from 1 plan"
    )
    assert found[GPT_STEPS] == "300 losses over 1 attempt in 3 parts"
    assert found[EXCLUSIVE].startswith("9 holdings of 4 accelerators")


def test_that_the_first_job_does_not_grow_again_is_no_fault() -> None:
    checks = verdict(the_three(grows=False).facts(122))
    assert [check.holds for check in checks] == [True] * 11


@pytest.mark.parametrize(
    "book", [the_three(live=False, grows=False), the_three("dp2-ga2")], ids=["restart", "size"]
)
def test_a_change_by_a_restart_or_of_size_alone_is_no_change_of_kind_in_memory(
    book: Logbook,
) -> None:
    assert failed(book.facts(122)) == [KINDS]
    checks = verdict(book.facts(122), replace(EXPECTED, changes_kind=False))
    assert [check.holds for check in checks] == [True] * 10


def test_nothing_at_all_fails_everything() -> None:
    nothing = replace(EXPECTED, refused=None)
    assert failed(ReportFacts(), nothing, ()) == list(range(11))


def test_a_job_that_did_not_succeed_or_never_came_is_named() -> None:
    book = the_three()
    book.jobs["u-vit"] = replace(book.jobs["u-vit"], stage="Failed")
    assert failed(book.facts(122)) == [SUCCEEDED]
    assert "vit Failed" in verdict(book.facts(122))[SUCCEEDED].found
    early = replace(EXPECTED, guest="")
    assert {SUCCEEDED, LEARNT} <= set(failed(the_three().facts(122), early))


def test_a_job_of_which_nothing_was_learnt_is_named() -> None:
    facts = the_three().facts(122)
    assert failed(facts, fits=FITS) == [LEARNT]
    assert "vit: nothing" in verdict(facts, fits=FITS)[LEARNT].found
    assert failed(facts, fits=(*FITS, a_fit("vit-tiny", "u-vit", rows=0))) == [LEARNT]


@pytest.mark.parametrize(
    ("refused", "found"),
    [
        (2, "2 decisions were refused, whole or about a job"),
        (None, "the control plane's count could not be read"),
    ],
)
def test_a_decision_that_broke_a_rule_fails_it(refused: int | None, found: str) -> None:
    facts, expected = the_three().facts(122), replace(EXPECTED, refused=refused)
    assert failed(facts, expected) == [RULES]
    assert verdict(facts, expected)[RULES].found == found


def promised(*, stopped: bool = False, shrunk: bool = False) -> Logbook:
    """A guaranteed job of its own, to which something happens that must not."""
    book = Logbook()
    book.register()
    book.submit(0, "u-llama", "llama")
    book.decide(1, book.starting("u-llama", 1, FOUR[:2]))
    book.train("u-llama", 1, 5, 20, range(1, 61))
    attempt = 1
    units: tuple[int, ...] = (0, 1)
    if stopped:
        book.decide(21, book.stopping("u-llama", 1, "makes room"))
        book.exit(22, "u-llama", 1, Outcome.STOPPED, 60)
        book.decide(30, book.starting("u-llama", 2, FOUR[:2]))
        attempt = 2
    if shrunk:
        book.decide(21, book.changing("u-llama", 1, "dp1", "makes room", keeping=(0,)))
        book.exit(22, "u-llama", 1, Outcome.STOPPED, 60, (1,))
        book.change(23, "u-llama", 1, ("dp2", "dp1"), 60, 0.5)
        units = (0,)
    book.train("u-llama", attempt, 35, 50, range(61, 121))
    book.exit(51, "u-llama", attempt, Outcome.SUCCEEDED, 120, units)
    return book


@pytest.mark.parametrize(
    ("book", "found"),
    [
        (promised(), "one attempt under dp2"),
        (promised(stopped=True), "1 times stopped; 2 attempts"),
        (promised(shrunk=True), "it held 1 accelerator at least"),
    ],
)
def test_a_promise_that_was_not_kept_is_named(book: Logbook, found: str) -> None:
    check = verdict(book.facts(60))[PROMISE]
    assert check.found == found
    assert check.holds is found.startswith("one attempt")


def test_a_guaranteed_job_that_was_not_seen_to_finish_has_no_kept_promise() -> None:
    book = promised()
    book.events.pop()
    book.events.pop()
    check = verdict(book.facts(60))[PROMISE]
    assert (check.holds, check.found) == (False, "it was not seen to finish")


def test_ranks_that_left_after_another_step_than_the_others_are_named() -> None:
    facts = the_three().facts(122)
    events = json.dumps([[one.sequence, one.body] for one in facts.events])
    assert events.count('"step": 120, "stood_still') == 1
    moved = json.loads(events.replace('"step": 120, "stood_still', '"step": 119, "stood_still'))
    found = verdict(replace(facts, events=tuple(EventFact(*one) for one in moved)))[GPT_STEPS]
    assert not found.holds
    assert found.found == (
        "ranks left attempt 1 after step 120 but the others went over after step 119"
    )


def test_a_lost_step_is_named() -> None:
    facts = the_three().facts(122)
    less = [point for point in facts.losses["u-gpt"] if point.step != 150]
    assert failed(with_gpt_losses(facts, less)) == [GPT_STEPS]
    assert "the first is 150" in verdict(with_gpt_losses(facts, less))[GPT_STEPS].found


def test_a_step_done_twice_is_named() -> None:
    facts = the_three(live=False).facts(122)
    more = [*facts.losses["u-gpt"], LossFact(120, 3.0, 2)]
    assert GPT_STEPS in failed(with_gpt_losses(facts, more))
    assert "done twice, the first is 120" in verdict(with_gpt_losses(facts, more))[GPT_STEPS].found


def test_an_attempt_that_went_on_after_its_stop_is_named() -> None:
    """A store that keeps one loss a step would hide a step done twice; the stop's step does not."""
    facts = the_three(live=False).facts(122)
    moved = [
        replace(point, attempt=2) if point.step == 120 else point for point in facts.losses["u-gpt"]
    ]
    found = verdict(with_gpt_losses(facts, moved))[GPT_STEPS]
    assert not found.holds
    assert "attempt 1 stopped at step 120 but its last loss is of step 119" in found.found


@pytest.mark.parametrize(
    ("uid", "place"), [("u-gpt", GPT_STEPS), ("u-llama", LLAMA_STEPS), ("u-vit", VIT_STEPS)]
)
def test_ending_early_is_named(uid: str, place: int) -> None:
    book = the_three()
    book.jobs[uid] = replace(book.jobs[uid], steps_total=301)
    assert failed(book.facts(122)) == [place]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("jump", [0.4, -0.4])
def test_a_jump_at_a_reconfiguration_is_named(jump: float, live: bool) -> None:
    facts = the_three(live=live).facts(122)
    bent = [
        replace(point, loss=point.loss + jump) if point.step > 120 else point
        for point in facts.losses["u-gpt"]
    ]
    expected = replace(EXPECTED, changes_kind=live)
    wanted = CONTINUOUS if live else CONTINUOUS - 1
    assert failed(with_gpt_losses(facts, bent), expected) == [wanted]


def test_a_change_too_near_the_end_to_be_judged_is_told_and_fails_only_without_any_other() -> None:
    def until(step: int, book: Logbook) -> Check:
        facts = book.facts(122)
        less = [point for point in facts.losses["u-gpt"] if point.step <= step]
        return verdict(with_gpt_losses(facts, less))[CONTINUOUS]

    both = until(185, the_three())
    assert both.holds
    assert both.found.endswith("gpt step 181: too few steps around it to tell")
    none = until(125, the_three())
    assert not none.holds
    assert none.found.endswith("no change of gpt can be judged")


def test_a_retry_is_no_planned_change() -> None:
    expected = replace(EXPECTED, elastic="u-1")
    check = verdict(the_bad_day().facts(140), expected)[PLANNED]
    assert not check.holds
    assert "2 retries" in check.found


def test_an_accelerator_given_out_before_the_leaver_released_it_is_named() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u-gpt", "gpt")
    book.submit(0, "u-vit", "vit")
    book.decide(1, book.starting("u-gpt", 1, FOUR[:2]))
    book.decide(2, book.changing("u-gpt", 1, "dp1", keeping=(0,)))
    book.change(3, "u-gpt", 1, ("dp2", "dp1"), 9, 0.5)
    book.decide(4, book.starting("u-vit", 1, FOUR[1:3]))
    book.exit(5, "u-gpt", 1, Outcome.STOPPED, 9, (1,))
    check = verdict(book.facts(6))[EXCLUSIVE]
    assert (check.holds, check.found) == (False, "node-a slot-1: u-gpt/1 and u-vit/1")


def test_an_accelerator_given_out_before_its_release_is_named() -> None:
    book = Logbook()
    book.register()
    book.submit(0, "u-gpt", "gpt")
    book.submit(0, "u-vit", "vit")
    book.decide(1, book.starting("u-gpt", 1, FOUR[:2]))
    book.decide(2, book.starting("u-vit", 1, FOUR[1:3]))
    book.exit(3, "u-gpt", 1, Outcome.SUCCEEDED)
    check = verdict(book.facts(4))[EXCLUSIVE]
    assert (check.holds, check.found) == (False, "node-a slot-1: u-gpt/1 and u-vit/1")


def test_a_jump_is_measured_and_a_slope_or_bend_is_none() -> None:
    chance = random.Random(5)
    slope = [6.0 - 0.02 * step + chance.gauss(0, 0.01) for step in range(100)]
    found = jump_at(slope, 50)
    assert found is not None
    assert abs(found[0]) <= 4 * found[1]
    raised = jump_at([*slope[:50], *(loss + 0.5 for loss in slope[50:])], 50)
    assert raised is not None
    assert raised[0] == pytest.approx(0.5, abs=4 * raised[1])
    bend = [(step - 49.5) ** 2 / 100 for step in range(100)]
    bent = jump_at(bend, 50)
    assert bent is not None
    assert bent[0] == pytest.approx(0, abs=1e-9)
    assert jump_at(slope, 2) is None


def test_noise_alone_hardly_ever_fails_the_check() -> None:
    """Counted over many seeds: the demo must not fail by bad luck."""
    failures = 0
    for seed in range(400):
        chance = random.Random(seed)
        losses = [2 + 3 * 0.99**step + chance.gauss(0, 0.08) for step in range(300)]
        for place in (100, 180):
            found = jump_at(losses, place)
            assert found is not None
            failures += abs(found[0]) > 4 * found[1]
    assert failures <= 2
