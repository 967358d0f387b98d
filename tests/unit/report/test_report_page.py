"""The page itself: well-formed, closed to the network, safe against names, bounded in size."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from controlplane.domain.record import Outcome
from headrace.cli.report_charts import (
    LOSSES_WIDTH_MIN_PX,
    MARK_CHARACTER_PX,
    Look,
    Scale,
    clock_text,
    grouped,
    loss_chart,
    seconds_text,
    smoothed,
    thinned,
    time_ticks,
    timeline,
)
from headrace.cli.report_facts import LossFact, NodeFact, ReportFacts
from headrace.cli.report_fold import history_of
from headrace.cli.report_model import Block, LossMark, LossSeries, series_of
from headrace.cli.report_page import page
from tests.unit.report.logbook import FOUR, LIVE, START, Logbook, at, the_bad_day, the_demo

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "</title></svg><script src=//evil.example/x>alert('1\"')</script>&amp;\x00<b onload=x>"


class Reader(HTMLParser):
    """Checks that every tag is closed in order and collects what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


WORLDS = {
    "demo": the_demo().facts(122),
    "live demo": the_demo(live=LIVE).facts(122),
    "bad day": the_bad_day().facts(140),
    "nothing": ReportFacts(),
    "no events": Logbook().facts(1),
}


@pytest.mark.parametrize("facts", WORLDS.values(), ids=WORLDS.keys())
def test_the_page_is_well_formed_and_reaches_for_nothing(facts: ReportFacts) -> None:
    html = page(facts)
    reader = read(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert not {"src", "href", "xlink:href", "onload"} & {name for name, _ in reader.attributes}
    assert "@import" not in html
    assert set(re.findall(r"url\((.*?)\)", html)) <= {"#hatch"}


def test_the_page_shows_what_was_held_under_which_plan_and_what_it_cost() -> None:
    words = " ".join(read(page(the_demo().facts(122))).words)
    for wanted in (
        "gpt  dp4  #1  39.1 s",
        "pp2.1f1b-ga4",
        "dp4 → pp2.1f1b-ga4: by a restart in 9.1 s",
        "300 of 300",
        "equal-share",
        "vit arrived: each of 2 jobs gets 2 of 4 accelerators",
        "gpt starts attempt 2 as pp2.1f1b-ga4 on node-a",
        "Plans: dp4 (data parallel over 4); "
        "pp2.1f1b-ga4 (a pipeline of 2 ranks (1f1b), 4 micro-batches)",
    ):
        assert wanted in words


def test_the_page_tells_changes_in_memory_from_restarts() -> None:
    html = page(the_demo(live=(True, False)).facts(122))
    assert re.findall(r"<title>(step [^<]*)", html) == [
        "step 120.5: reconfigured in memory, dp4 → pp2.1f1b-ga4",
        "step 180.5: reconfigured by a restart, pp2.1f1b-ga4 → dp4",
    ]
    words = " ".join(read(html).words)
    assert "dp4 → pp2.1f1b-ga4: in memory, stood still 1.2 s" in words
    assert "pp2.1f1b-ga4 → dp4: by a restart in 15.9 s" in words
    assert "asked to leave at 0:37, while the others train on" in words
    # Three stretches of gpt and one of vit.
    assert html.count('class="mean') == 4


def test_who_comes_is_hatched_until_it_trains_and_who_leaves_dark_until_it_is_gone() -> None:
    history = history_of(the_demo(live=LIVE).facts(122))
    drawn = timeline(history, Look.of(history))

    def shares(unit: int, kind: str) -> list[float]:
        (block,) = re.findall(rf"<title>gpt, dp4, attempt 1, unit {unit};.*?</svg>", drawn)
        found = re.search(rf'class="{kind}"[^>]* width="([\d.]+)%"', block)
        return [float(found[1]) if found else 0.0]

    assert shares(5, "starting") == [pytest.approx(100 * (78.5 - 71.1) / (121 - 71.1), abs=0.01)]
    assert shares(3, "stopping") == [pytest.approx(100 * (40.2 - 38.1) / (40.2 - 1.1), abs=0.01)]


def test_who_has_not_joined_is_hatched_all_along() -> None:
    book = Logbook()
    book.register()
    book.submit(1, "u")
    book.decide(2, book.starting("u", 1, FOUR[:1]))
    book.train("u", 1, 5, 20, range(1, 80))
    book.decide(21, book.changing("u", 1, "dp2", keeping=(0,), joining=FOUR[1:2]))
    history = history_of(book.facts(30))
    drawn = timeline(history, Look.of(history))
    assert '<rect class="starting" width="100%" height="100%"/>' in drawn


def test_hostile_names_stay_text() -> None:
    book = Logbook()
    book.register()
    book.submit(1, "u", HOSTILE, namespace="<i>")
    book.decide(2, book.starting("u", 1, FOUR))
    book.train("u", 1, 5, 20, range(1, 80))
    book.exit(21, "u", 1, Outcome.FAILED, message=HOSTILE)
    facts = book.facts(30)
    job = replace(facts.jobs[0], stage=HOSTILE, plan=HOSTILE, reason=HOSTILE)
    node = NodeFact(HOSTILE, (facts.nodes[0].accelerators[0],), contact=HOSTILE)
    cluster = replace(facts.cluster, policy=HOSTILE, version=HOSTILE, state=HOSTILE)
    hostile = replace(facts, jobs=(job,), nodes=(*facts.nodes, node), cluster=cluster)
    html = page(hostile)
    reader = read(html)
    assert not {"script", "b onload=x", "i>"} & set(reader.tags)
    assert "onload" not in {name for name, _ in reader.attributes}
    assert "\x00" not in html
    assert any("<script src=//evil.example/x>" in words for words in reader.words)


def test_the_same_facts_give_the_same_bytes() -> None:
    assert page(the_bad_day().facts(140)) == page(the_bad_day().facts(140))


def test_a_long_history_stays_small() -> None:
    book = Logbook(nodes=("node-a", "node-b"))
    book.register()
    free = dict.fromkeys(FOUR, 10.0)
    attempts: dict[str, int] = {}
    for number in range(6000):
        slot = min(free, key=lambda one: (free[one], one))
        uid = f"u-{number % 250}"
        attempts[uid] = attempts.get(uid, 0) + 1
        if attempts[uid] == 1:
            book.submit(free[slot], uid)
        book.decide(free[slot], book.starting(uid, attempts[uid], (slot,)))
        free[slot] += 1 + number * 7919 % 97
        outcome = Outcome.FAILED if number % 5 == 0 else Outcome.STOPPED
        book.exit(free[slot], uid, attempts[uid], outcome, message="rank 0 failed" * 20)
    curve = tuple(
        LossFact(step, 2 + math.sin(step * step), 1 + step // 5000, at(step))
        for step in range(100_000)
    )
    facts = replace(book.facts(max(free.values())), losses={"u-0": curve, "u-1": curve})
    html = page(facts)
    assert len(html.encode()) < 3_000_000
    read(html)


def test_thinning_keeps_the_extremes_and_both_ends() -> None:
    points = [LossFact(step, 3.0 + step % 7 / 10, 1) for step in range(10_000)]
    points[4321] = LossFact(4321, 99.0, 1)
    points[8765] = LossFact(8765, 0.01, 1)
    kept = thinned(points, 100)
    assert len(kept) <= 400
    assert {points[0], points[4321], points[8765], points[-1]} <= set(kept)
    assert [one.step for one in kept] == sorted(one.step for one in kept)
    assert thinned(points[:300], 100) == points[:300]


def test_a_jump_between_attempts_is_not_smoothed_away() -> None:
    points = [
        LossFact(step, 3.0 if step <= 100 else 5.0, 1 + (step > 100)) for step in range(1, 201)
    ]
    chart = loss_chart(series_of("u", points, ()), "u", 0, 500)
    assert chart.count('class="mean') == 2
    levels = {
        place.split(",")[1]
        for curve in re.findall(r'class="mean[^"]*" points="([^"]*)"', chart)
        for place in curve.split()
    }
    assert len(levels) == 2


def test_labels_of_marks_do_not_overlap_in_the_narrowest_plot() -> None:
    steps = [1, 5, 9, 30, 34, 51, 70, 92, 97, 100]
    marks = tuple(LossMark(step - 0.5, True, True, "dp4", "dp2-ga2", 1) for step in steps)
    points = tuple(LossFact(step, 1.0, 1) for step in range(101))
    chart = loss_chart(LossSeries("u", points, (), marks), "u", 0, 500)
    found = re.findall(
        r'<text class="mark [a-z]+" x="([\d.]+)%" y="(\d+)" text-anchor="(\w+)">([^<]+)', chart
    )
    assert len(found) >= 4
    taken: dict[str, float] = {}
    for percent, row, anchor, label in found:
        width = len(label) * MARK_CHARACTER_PX
        place = float(percent) / 100 * LOSSES_WIDTH_MIN_PX
        left = place - {"start": 0, "middle": width / 2, "end": width}[anchor]
        assert left > taken.get(row, 0), (label, percent)
        assert left + width <= LOSSES_WIDTH_MIN_PX
        taken[row] = left + width
    assert f".losses{{display:block;min-width:{LOSSES_WIDTH_MIN_PX}px" in page(
        the_demo().facts(122)
    )


def test_smoothing_follows_a_slope_to_its_ends_and_evens_out_noise() -> None:
    slope = [LossFact(step, 10.0 - step, 1) for step in range(9)]
    assert [round(one.loss, 9) for one in smoothed(slope, 5)] == [one.loss for one in slope]
    zigzag = [LossFact(step, float(step % 2), 1) for step in range(40)]
    assert all(abs(one.loss - 0.5) < 0.25 for one in smoothed(zigzag, 11))
    assert [one.loss for one in smoothed(slope[:1], 5)] == [10.0]


def test_losses_over_a_large_ratio_are_logarithmic_and_others_not() -> None:
    assert Scale.over([2.4, 0.02]).logarithmic
    assert not Scale.over([5.5, 2.1]).logarithmic
    assert not Scale.over([5.0, -0.1]).logarithmic
    assert Scale.over([1.0, 1.0]).share(1.0) == pytest.approx(0.5)
    wide = Scale.over([2.4, 0.02])
    assert wide.ticks() == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2])
    assert 0 < wide.share(0.02) < wide.share(2.4) < 1


def test_losses_that_are_no_numbers_are_counted_and_not_drawn() -> None:
    points = [LossFact(1, 2.0, 1), LossFact(2, math.nan, 1), LossFact(3, math.inf, 1)]
    chart = loss_chart(series_of("u", points, ()), "u", 0, 100)
    assert "2 steps without a finite loss" in chart
    assert "nan" not in chart
    assert "finite" in loss_chart(series_of("u", points[1:], ()), "u", 0, 100)


def test_narrow_neighbours_share_a_group() -> None:
    def block(start: int, end: int) -> Block:
        return Block("n", "s", "u", 1, 0, "dp1", start, end, False, "Stopped", (0, 1))

    blocks = [block(0, 2), block(2, 4), block(4, 50), block(50, 51), block(80, 81)]
    assert [len(group) for group in grouped(blocks, 5)] == [2, 1, 1, 1]
    assert [len(group) for group in grouped(blocks, 0)] == [1] * 5


def test_every_accelerator_has_a_lane_also_if_nothing_ran_on_it() -> None:
    book = Logbook(nodes=("node-a", "node-b", "node-idle"))
    book.register()
    book.submit(1, "u")
    book.decide(2, book.starting("u", 1, FOUR[:1]))
    history = history_of(book.facts(9))
    drawn = timeline(history, Look.of(history))
    assert drawn.count('class="lane"') == 6
    assert "node-idle" in drawn


def test_a_huge_cluster_shows_the_lanes_that_were_used() -> None:
    book = Logbook(nodes=tuple(f"node-{number:03}" for number in range(400)))
    book.register()
    book.submit(1, "u")
    book.decide(2, book.starting("u", 1, (("node-399", "slot-0"),)))
    history = history_of(book.facts(9))
    drawn = timeline(history, Look.of(history))
    assert drawn.count('class="lane"') == 1
    assert "799 accelerators are left out" in drawn


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (7_400_000_000, "7.4 s"),
        (59_990_000_000, "1 min 00 s"),
        (125_000_000_000, "2 min 05 s"),
        (11_520_000_000_000, "3 h 12 min"),
        (435_600_000_000_000, "5 d 01 h"),
    ],
)
def test_durations_read_well(nanoseconds: int, words: str) -> None:
    assert seconds_text(nanoseconds) == words


def test_times_read_well() -> None:
    assert clock_text(65_000_000_000) == "1:05"
    assert clock_text(7_384_000_000_000) == "2:03:04"
    assert clock_text(at(1.2) - START) == "0:01"


@pytest.mark.parametrize("span_seconds", [0.5, 9, 61, 140, 3601, 90_000, 10_000_000])
def test_there_are_few_round_ticks_within_the_span(span_seconds: float) -> None:
    span = round(span_seconds * 1e9)
    ticks = time_ticks(span)
    assert 1 <= len(ticks) <= 11
    assert ticks[0] == 0
    assert ticks[-1] <= span
