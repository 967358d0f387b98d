"""The demo's verdict: it must pass a right history and name what is wrong in a wrong one."""

import json
import random
from dataclasses import replace

import pytest

from controlplane.domain.record import Outcome
from headrace.cli.demo_checks import Check, Expected, checked, jump_at
from headrace.cli.report_facts import EventFact, LossFact, ReportFacts
from headrace.cli.report_fold import history_of
from tests.unit.report.logbook import FOUR, LIVE, Logbook, the_bad_day, the_demo

PLANS = ("dp4", "pp2.1f1b-ga4", "dp1")
EXPECTED = Expected("u-gpt", "u-vit", 4, 300, 300, PLANS)
SIZES, TWICE_RECONFIGURED, KINDS, GPT_STEPS, VIT_STEPS, CONTINUOUS, EXCLUSIVE = range(7)


def verdict(facts: ReportFacts, expected: Expected = EXPECTED) -> list[Check]:
    return checked(history_of(facts), dict(facts.losses), expected)


def failed(facts: ReportFacts, expected: Expected = EXPECTED) -> list[int]:
    return [place for place, check in enumerate(verdict(facts, expected)) if not check.holds]


def with_gpt_losses(facts: ReportFacts, losses: list[LossFact]) -> ReportFacts:
    return replace(facts, losses={**facts.losses, "u-gpt": tuple(losses)})


def test_what_the_demo_is_meant_to_show_passes() -> None:
    checks = verdict(the_demo().facts(122))
    assert [check.holds for check in checks] == [True] * 7
    assert checks[SIZES].claim == "gpt ran on 4, on 2 beside vit, and on 4 again"
    assert checks[TWICE_RECONFIGURED].found == (
        "2 reconfigurations (dp4 to pp2.1f1b-ga4 by a restart in 9.1 s; "
        "pp2.1f1b-ga4 to dp4 by a restart in 15.9 s), 0 retries"
    )
    assert checks[KINDS].claim == "gpt went over to another kind of plan while it ran, and back"
    assert checks[KINDS].found == (
        "dp4 (data parallel over 4), then pp2.1f1b-ga4 (a pipeline of 2 ranks (1f1b), "
        "4 micro-batches), then dp4 (data parallel over 4)"
    )


@pytest.mark.parametrize(
    ("live", "attempts", "holdings"),
    [(LIVE, "1 attempt", 8), ((True, False), "2 attempts", 10), ((False, True), "2 attempts", 10)],
)
def test_it_passes_in_memory_too_and_tells_the_way(
    live: tuple[bool, bool], attempts: str, holdings: int
) -> None:
    checks = verdict(the_demo(live=live).facts(122))
    assert [check.holds for check in checks] == [True] * 7
    ways = (
        "in memory, stood still 1.2 s" if live[0] else "by a restart in 9.1 s",
        "in memory, stood still 0.8 s" if live[1] else "by a restart in 15.9 s",
    )
    assert checks[TWICE_RECONFIGURED].found == (
        f"2 reconfigurations (dp4 to pp2.1f1b-ga4 {ways[0]}; pp2.1f1b-ga4 to dp4 {ways[1]}), "
        "0 retries"
    )
    assert checks[GPT_STEPS].found == f"300 losses over {attempts} in 3 parts"
    assert checks[EXCLUSIVE].found.startswith(f"{holdings} holdings of 4 accelerators")


def test_ranks_that_left_after_another_step_than_the_others_are_named() -> None:
    facts = the_demo(live=LIVE).facts(122)
    events = json.dumps([[one.sequence, one.body] for one in facts.events])
    assert events.count('"step": 120, "stood_still') == 1
    moved = json.loads(events.replace('"step": 120, "stood_still', '"step": 119, "stood_still'))
    found = verdict(replace(facts, events=tuple(EventFact(*one) for one in moved)))[GPT_STEPS]
    assert not found.holds
    assert found.found == (
        "ranks left attempt 1 after step 120 but the others went over after step 119"
    )


def test_another_size_of_the_same_kind_or_another_plan_is_no_change_of_kind() -> None:
    assert failed(the_demo("dp2-ga2").facts(122)) == [KINDS]
    same = replace(EXPECTED, plans=("dp4", "dp2-ga2"))
    assert failed(the_demo("dp2-ga2").facts(122), same) == [KINDS]
    assert failed(the_demo().facts(122), replace(EXPECTED, plans=("dp4",))) == [KINDS]


def test_who_names_no_plans_need_not_change_between_kinds() -> None:
    checks = verdict(the_demo("dp2-ga2").facts(122), replace(EXPECTED, plans=()))
    assert [check.holds for check in checks] == [True] * 6


def test_nothing_at_all_fails_everything() -> None:
    assert failed(ReportFacts()) == list(range(7))


def test_a_lost_step_is_named() -> None:
    facts = the_demo().facts(122)
    less = [point for point in facts.losses["u-gpt"] if point.step != 150]
    assert failed(with_gpt_losses(facts, less)) == [GPT_STEPS]
    assert "the first is 150" in verdict(with_gpt_losses(facts, less))[GPT_STEPS].found


def test_a_step_done_twice_is_named() -> None:
    facts = the_demo().facts(122)
    more = [*facts.losses["u-gpt"], LossFact(120, 3.0, 2)]
    assert GPT_STEPS in failed(with_gpt_losses(facts, more))
    assert "done twice, the first is 120" in verdict(with_gpt_losses(facts, more))[GPT_STEPS].found


def test_an_attempt_that_went_on_after_its_stop_is_named() -> None:
    """A store that keeps one loss a step would hide a step done twice; the stop's step does not."""
    facts = the_demo().facts(122)
    moved = [
        replace(point, attempt=2) if point.step == 120 else point for point in facts.losses["u-gpt"]
    ]
    found = verdict(with_gpt_losses(facts, moved))[GPT_STEPS]
    assert not found.holds
    assert "attempt 1 stopped at step 120 but its last loss is of step 119" in found.found


def test_ending_early_is_named() -> None:
    assert failed(the_demo().facts(122), replace(EXPECTED, elastic_steps=301)) == [GPT_STEPS]
    assert failed(the_demo().facts(122), replace(EXPECTED, guest_steps=301)) == [VIT_STEPS]


@pytest.mark.parametrize("live", [LIVE, (False, False)])
@pytest.mark.parametrize("jump", [0.4, -0.4])
def test_a_jump_at_a_reconfiguration_is_named(jump: float, live: tuple[bool, bool]) -> None:
    facts = the_demo(live=live).facts(122)
    bent = [
        replace(point, loss=point.loss + jump) if point.step > 120 else point
        for point in facts.losses["u-gpt"]
    ]
    assert failed(with_gpt_losses(facts, bent)) == [CONTINUOUS]


def test_a_retry_is_not_a_reconfiguration() -> None:
    found = failed(the_bad_day().facts(140), Expected("u-1", "none", 4, 260, 0, PLANS))
    assert {SIZES, TWICE_RECONFIGURED, GPT_STEPS} <= set(found)


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
