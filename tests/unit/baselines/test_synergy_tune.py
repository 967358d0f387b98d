"""Synergy's allocation against runs of the released code."""

from math import floor

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from controlplane.baselines.synergy_tune import (
    Find,
    Server,
    Tenant,
    Tuner,
    capped,
    consolidated,
    in_order,
    proportional,
)
from tests.unit.baselines.synergy_opt import Profile, best_points

SMALL = Server("s0", 8, (24, 500, 500))
LARGE = Server("s0", 8, (96, 1600, 500))
EITHER = pytest.mark.parametrize("find", [in_order, consolidated])


def a_tenant(
    name: str, accelerators: int, cpus: float, gb: float = 20, speedup: float = 1
) -> Tenant:
    """Storage is what the released code lets every job ask for: its share."""
    return Tenant(name, accelerators, (cpus, gb, 62.5), speedup)


def given(tuner: Tuner, server: Server, *tenants: Tenant) -> dict[str, tuple[float, float]]:
    """CPUs and speed of everybody who gets something."""
    grants = tuner.run([server], tenants)
    return {name: (grant.total[0], grant.speed) for name, grant in grants.items()}


def iterations(speed: float, round_seconds: float = 300.0) -> int:
    """In a round, of a job that takes a second for one at its share."""
    return floor(round_seconds * speed + 1e-9)


@EITHER
def test_a_demand_yields_so_that_nobody_is_left_out(find: Find) -> None:
    jobs = (a_tenant("j0", 4, 6, 62.5, 1.75), a_tenant("j1", 4, 1))
    assert given(Tuner(find), SMALL, *jobs) == {"j0": (12, 1), "j1": (4, 1)}
    greedy = given(Tuner(find, cuts=False), SMALL, *jobs)
    assert greedy == {"j0": (24, 1.75)}
    assert (iterations(1), iterations(1.75)) == (300, 525)


@EITHER
def test_demands_that_fit_together_are_met(find: Find) -> None:
    jobs = (a_tenant("j0", 4, 5, 62.5, 1.53), a_tenant("j1", 4, 1))
    expected = {"j0": (20, 1.53), "j1": (4, 1)}
    assert given(Tuner(find), SMALL, *jobs) == expected
    assert given(Tuner(find, cuts=False), SMALL, *jobs) == expected
    assert iterations(1.53) == 459


@EITHER
def test_a_neighbour_falls_back_to_its_whole_share_at_once(find: Find) -> None:
    jobs = (a_tenant("j0", 2, 9, 62.5, 2.4), a_tenant("j1", 2, 1), a_tenant("j2", 4, 3, 62.5))
    assert given(Tuner(find), SMALL, *jobs) == {"j0": (6, 1), "j1": (2, 1), "j2": (12, 1)}
    greedy = given(Tuner(find, cuts=False), SMALL, *jobs)
    assert greedy == {"j0": (18, 2.4), "j1": (2, 1)}
    assert iterations(2.4) == 720


@EITHER
def test_on_a_large_server_there_is_enough_for_one_demand(find: Find) -> None:
    hungry = a_tenant("j0", 4, 16, 40, 1.3)
    modest = given(Tuner(find), LARGE, hungry, a_tenant("j1", 4, 1, 2))
    assert modest == {"j0": (64, 1.3), "j1": (4, 1)}
    assert iterations(1.3) == 390
    twins = (hungry, a_tenant("j1", 4, 16, 40, 1.3))
    assert given(Tuner(find), LARGE, *twins) == {"j0": (48, 1), "j1": (48, 1)}
    assert given(Tuner(find, cuts=False), LARGE, *twins) == {"j0": (64, 1.3)}


def test_a_demand_above_a_server_is_capped_and_gains_less() -> None:
    resnet18 = capped(a_tenant("j", 4, 9, 62.5, 2.4), SMALL)
    assert resnet18.demand[0] * 4 == 24
    assert resnet18.speedup == pytest.approx(1.70)
    wide = capped(a_tenant("j", 16, 9, 62.5, 2.4), SMALL)
    assert (wide.demand, wide.speedup) == (SMALL.share, 1)


def test_in_proportion_everybody_has_its_share() -> None:
    grants = proportional([SMALL], [a_tenant("j0", 4, 6, 62.5, 1.75), a_tenant("j1", 4, 1)])
    assert [(g.total[0], g.speed) for g in grants.values()] == [(12, 1), (12, 1)]


def test_the_program_finds_the_most_speed_in_all() -> None:
    resnet18 = (
        (3, 20.83, 1.0),
        (4, 20.83, 1.27),
        (5, 20.83, 1.53),
        (6, 20.83, 1.75),
        (9, 20.83, 2.4),
    )
    flat = tuple((cpus, 20.83, 1.0) for cpus in (1, 2, 3, 4, 5, 6, 9))
    found = best_points([Profile(4, resnet18), Profile(4, flat)], 24, 500)
    assert [point[0] for point in found] == [5, 1]
    assert sum(point[2] for point in found) == pytest.approx(2.53)


@st.composite
def tenants(draw: st.DrawFn) -> list[Tenant]:
    """Jobs that a small server has accelerators for; who wants more than its share gains by it."""
    found: list[Tenant] = []
    left = SMALL.accelerators
    while left and len(found) < 5:
        count = draw(st.integers(1, left))
        cpus = draw(st.sampled_from((1, 2, 3, 4, 5, 6, 9, 12)))
        gb = draw(st.sampled_from((20.83, 62.5, 125.0)))
        wants_more = cpus > SMALL.share[0] or gb > SMALL.share[1]
        speed = draw(st.floats(1, 3)) if wants_more else 1.0
        found.append(a_tenant(f"j{len(found)}", count, cpus, gb, speed))
        left -= count
    return found


@drawn(tenants(), st.sampled_from([in_order, consolidated]))
def test_tuning_leaves_nobody_out_and_never_beats_the_program(
    jobs: list[Tenant], find: Find
) -> None:
    tuned = Tuner(find).run([SMALL], jobs)
    assert set(tuned) == {job.name for job in jobs}
    profiles = []
    for job in jobs:
        able = capped(job, SMALL)
        (cpus, gb, _), (own_cpus, own_gb, _) = SMALL.share, able.demand
        points = ((cpus, gb, 1.0), (own_cpus, own_gb, able.speedup))
        profiles.append(Profile(job.accelerators, points))
    most = sum(point[2] for point in best_points(profiles, 24, 500))
    assert sum(grant.speed for grant in tuned.values()) <= most + 1e-6


def test_who_runs_already_stays_and_is_cut_where_it_is() -> None:
    servers = [SMALL, Server("s1", 8, (24, 500, 500))]
    runs = Tenant("r", 4, (6, 62.5, 62.5), 1.75, at={"s1": 4})
    grants = Tuner(consolidated).run(servers, [runs, a_tenant("j", 8, 3, 62.5)])
    assert grants["r"].total[0] == 24
    assert grants["j"].parts == {"s0": 8}
    grants = Tuner(consolidated).run(servers[1:], [runs, a_tenant("j", 4, 3, 62.5)])
    assert (grants["r"].total[0], grants["r"].speed, grants["j"].total[0]) == (12, 1, 12)


def test_a_job_larger_than_a_server_has_its_share_on_each() -> None:
    servers = [Server(f"s{i}", 8, (24, 500, 500)) for i in range(2)]
    grants = Tuner().run(servers, [a_tenant("small", 4, 6, 62.5, 1.75), a_tenant("wide", 12, 1)])
    assert grants["wide"].parts == {"s0": 4, "s1": 8}
    assert grants["small"].speed == 1
