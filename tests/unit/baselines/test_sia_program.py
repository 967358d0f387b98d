"""Sia's program against instances that were enumerated (and one solved) outside of this project."""

from itertools import product

import pulp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.baselines.sia_program import (
    Candidate,
    Configuration,
    allocation,
    cost,
    cost_row,
    counts,
    gains,
    restart_factor,
    total_cost,
)

A = (100, 180, 300, 460)
B = (50, 97, 188, 360)
C = (10, 14, 17, 18)
SIZES = (1, 2, 4, 8)


def a_candidate(
    goodputs: tuple[float, ...],
    sizes: tuple[int, ...] = SIZES,
    *,
    unit: int = 1,
    previous: int | None = None,
    factor: float = 1.0,
) -> Candidate:
    """A job with these goodputs; ``previous`` is the number of accelerators that it has."""
    each = zip(sizes, gains(goodputs, unit), strict=True)
    configurations = tuple(Configuration(size, gain) for size, gain in each)
    position = None if previous is None else sizes.index(previous)
    return Candidate(configurations, position, factor)


def rigid(count: int) -> Candidate:
    return Candidate((Configuration(count, float(count)),))


def measured(*seconds: float) -> tuple[float, ...]:
    return tuple(1 / each for each in seconds)


NEWCOMER = Candidate((Configuration(1, 1.0),))
"""Nothing was measured of it yet, so it may have one replica."""

VIT_GA = measured(0.153556655, 0.087954703, 0.062786846, 0.049219244)
BERT_GA = measured(0.657094737, 0.365352632, 0.225673684, 0.157684211)
T5_GA = measured(1.1014, 0.611389474, 0.408447368, 0.320078947)
GPT2_ZERO = measured(3.6161, 1.8805, 0.9575, 0.530168421)
"""Of seconds that a step takes on 1, 2, 4 and 8 A800, as Rubick's artifact measured them."""


def sizes_given(jobs: list[Candidate], total: int = 8, **options: float) -> list[int]:
    chosen = allocation(jobs, {"": total}, **options)
    return [
        0 if taken is None else job.configurations[taken].accelerators
        for job, taken in zip(jobs, chosen, strict=True)
    ]


def cost_of(jobs: list[Candidate], total: int = 8, **options: float) -> float:
    chosen = allocation(jobs, {"": total}, **options)
    return round(total_cost(jobs, chosen, **options), 2)


def every_allocation(jobs: list[Candidate], total: int) -> list[tuple[float, tuple[int, ...]]]:
    """Costs and sizes of all that fit, cheapest first."""
    found = []
    for chosen in product(*([None, *range(len(job.configurations))] for job in jobs)):
        sizes = tuple(
            0 if taken is None else job.configurations[taken].accelerators
            for job, taken in zip(jobs, chosen, strict=True)
        )
        if sum(sizes) <= total:
            found.append((round(total_cost(jobs, chosen), 2), sizes))
    return sorted(found)


def test_cost_rows_are_rounded_powers_of_the_goodput_over_the_least() -> None:
    assert cost_row(a_candidate(A), -0.5) == (1, 0.75, 0.58, 0.47)
    assert cost_row(a_candidate(B), -0.5) == (1, 0.72, 0.52, 0.37)
    assert cost_row(a_candidate(C), -0.5) == (1, 0.85, 0.77, 0.75)


@pytest.mark.parametrize(
    ("jobs", "sizes", "best", "second"),
    [
        # 1: nobody has anything yet.
        ([a_candidate(A), a_candidate(B), a_candidate(C)], (2, 4, 2), 2.12, (2.15, (4, 2, 2))),
        # 2: restarts cost little (600 s old, one restart of 30 s).
        (
            [
                a_candidate(A, previous=2, factor=0.9048),
                a_candidate(B, previous=2, factor=0.9048),
                a_candidate(C, previous=4, factor=0.9048),
            ],
            (2, 4, 2),
            2.18,
            (2.22, (4, 2, 2)),
        ),
        # 3: restarts cost much, so all stay.
        (
            [
                a_candidate(A, previous=2, factor=0.6),
                a_candidate(B, previous=2, factor=0.6),
                a_candidate(C, previous=4, factor=0.6),
            ],
            (2, 2, 4),
            2.24,
            (2.51, (2, 4, 2)),
        ),
        # 4: a newcomer waits although accelerators could be freed for it.
        (
            [
                a_candidate(A, previous=2, factor=0.9048),
                a_candidate(B, previous=4, factor=0.8571),
                a_candidate(C, previous=2, factor=0.9524),
                NEWCOMER,
            ],
            (2, 4, 2, 0),
            3.22,
            (3.29, (2, 4, 1, 1)),
        ),
        # 5: the same without c and the newcomer.
        (
            [
                a_candidate(A, previous=2, factor=0.9048),
                a_candidate(B, previous=4, factor=0.8571),
            ],
            (4, 4),
            1.13,
            (1.27, (2, 4)),
        ),
        # 7: a job of which one replica takes four.
        ([a_candidate((40, 70), (4, 8), unit=4), a_candidate(A)], (4, 4), 1.08, (1.25, (4, 2))),
        # 8 and 9: what was measured.
        (
            [a_candidate(VIT_GA), a_candidate(BERT_GA), a_candidate(T5_GA)],
            (2, 4, 2),
            2.1,
            (2.12, (2, 2, 4)),
        ),
        (
            [a_candidate(VIT_GA), a_candidate(T5_GA), a_candidate(GPT2_ZERO)],
            (2, 2, 4),
            2.02,
            (2.09, (2, 4, 2)),
        ),
    ],
)
def test_the_optimum_is_the_enumerated_one(
    jobs: list[Candidate], sizes: tuple[int, ...], best: float, second: tuple[float, object]
) -> None:
    assert (tuple(sizes_given(jobs)), cost_of(jobs)) == (sizes, best)
    assert every_allocation(jobs, 8)[0] == (best, sizes)
    assert second in every_allocation(jobs, 8)[1:]
    assert every_allocation(jobs, 8)[1][0] == second[0]


def test_a_large_rigid_job_waits_for_small_ones_that_gain_more() -> None:
    jobs = [a_candidate(BERT_GA)] * 6 + [rigid(40), rigid(32)]  # Oracle 10.
    assert sizes_given(jobs, 64) == [8, 8, 4, 4, 4, 4, 0, 32]
    assert cost_of(jobs, 64) == 4.62


def test_without_a_price_for_waiting_nothing_is_allocated() -> None:
    jobs = [a_candidate(A), a_candidate(B), a_candidate(C)]  # Oracle 6.
    assert sizes_given(jobs, none_costs=-1.0) == [0, 0, 0]
    assert cost_of(jobs, none_costs=-1.0) == -3


def test_unrounded_the_first_instance_costs_what_was_computed() -> None:
    each = zip((A, B, C), (1, 2, 1), strict=True)
    exact = sum(gains(goodputs)[i] ** -0.5 for goodputs, i in each)
    assert exact == pytest.approx(2.106221, abs=1e-6)


def test_a_rigid_job_costs_by_its_size_alone() -> None:
    sizes = (4, 5, 8, 16, 24, 32, 40, 48, 64)
    expected = (0.5, 0.45, 0.35, 0.25, 0.2, 0.18, 0.16, 0.14, 0.12)
    assert tuple(cost(size, -0.5) for size in sizes) == expected


def test_a_job_of_whole_nodes_costs_by_its_measured_times() -> None:
    job = a_candidate(measured(1.3459, 0.9431, 0.6729), (16, 32, 64), unit=8)
    assert [round(each.gain, 2) for each in job.configurations] == [8, 11.42, 16.0]
    assert cost_row(job, -0.5) == (0.35, 0.3, 0.25)


@pytest.mark.parametrize(
    ("age", "restarts", "each", "expected"),
    [
        (600, 2, 30, 0.8571),
        (600, 0, 30, 0.9524),
        (600, 1, 30, 0.9048),
        (20, 0, 30, 1),
        (100, 5, 30, 0),
        (3600, 3, 78, 0.9152),
        (3600, 3, 260, 0.7306),
        (0, 0, 0, 1),
    ],
)
def test_the_restart_factor(age: float, restarts: int, each: float, expected: float) -> None:
    assert restart_factor(age, restarts, each) == pytest.approx(expected, abs=5e-5)


def test_equally_cheap_allocations_give_the_earlier_job_more() -> None:
    jobs = [a_candidate(A), a_candidate(B), a_candidate(C)]
    assert sizes_given(jobs, power=-2.0) == [4, 2, 2]
    assert cost_of(jobs, power=-2.0) == 0.89 + 0.0
    assert sizes_given([jobs[1], jobs[0], jobs[2]], power=-2.0) == [4, 2, 2]


def test_of_equally_cheap_allocations_the_one_stays_that_is_there() -> None:
    later = a_candidate(A, previous=4)
    assert sizes_given([a_candidate(A, previous=2), later], 6) == [2, 4]
    assert sizes_given([a_candidate(A), a_candidate(A)], 6) == [4, 2]


def test_configurations_are_powers_of_two_in_a_node_and_whole_nodes() -> None:
    assert counts(8, 8) == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    assert counts(4, 2) == (1, 2, 4, 8)
    assert counts(6, 2) == (1, 2, 4, 6, 12)
    assert counts(1, 3) == (1, 2, 3)
    assert counts(8, 0) == ()


def test_a_power_with_which_costs_rise_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a negative one"):
        cost(1.0, 0.5)


def by_pulp(jobs: list[Candidate], limits: dict[str, int]) -> float:
    """The program as the paper writes it, in hundredths."""
    program = pulp.LpProblem("sia", pulp.LpMinimize)
    x = {
        (i, c): program.add_variable(f"x_{i}_{c}", cat="Binary")
        for i, job in enumerate(jobs)
        for c in range(len(job.configurations))
    }
    taken = [
        pulp.lpSum(x[i, c] for c in range(len(job.configurations))) for i, job in enumerate(jobs)
    ]
    costs = [cost_row(job, -0.5) for job in jobs]
    program += pulp.lpSum(costs[i][c] * x[i, c] for i, c in x) + 1.1 * (
        len(jobs) - pulp.lpSum(taken)
    )
    for each in taken:
        program += each <= 1
    for name, limit in limits.items():
        program += (
            pulp.lpSum(
                jobs[i].configurations[c].accelerators * x[i, c]
                for i, c in x
                if name in dict(jobs[i].configurations[c].uses)
            )
            <= limit
        )
    program.solve(pulp.HiGHS(msg=False, threads=1))
    assert pulp.LpStatus[program.status] == "Optimal"
    return round(float(pulp.value(program.objective)), 2)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    goodputs = sorted(draw(st.lists(st.floats(1, 50), min_size=1, max_size=4)))
    kinds = draw(st.lists(st.sampled_from("xy"), min_size=len(goodputs), max_size=len(goodputs)))
    each = zip(SIZES, gains(goodputs), kinds, strict=False)
    previous = draw(st.none() | st.integers(0, len(goodputs) - 1))
    configurations = tuple(Configuration(n, gain, ((kind, n),)) for n, gain, kind in each)
    return Candidate(configurations, previous, draw(st.floats(0, 1)))


@settings(max_examples=40, deadline=None)
@given(st.lists(candidates(), min_size=1, max_size=6), st.integers(0, 12), st.integers(0, 8))
def test_no_allocation_is_cheaper_as_a_readable_program_finds(
    jobs: list[Candidate], x: int, y: int
) -> None:
    limits = {"x": x, "y": y}
    chosen = allocation(jobs, limits)
    assert round(total_cost(jobs, chosen), 2) == by_pulp(jobs, limits)
    for name, limit in limits.items():
        taken = (
            job.configurations[c] for job, c in zip(jobs, chosen, strict=True) if c is not None
        )
        assert sum(each.accelerators for each in taken if name in dict(each.uses)) <= limit
