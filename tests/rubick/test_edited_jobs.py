"""What must hold of a job whose spec was edited: the same as of any, unless the edit asks for a
change at once.
"""

from dataclasses import replace
from typing import Any

import pytest

from controlplane.domain.ids import JobUid
from controlplane.domain.job import JobSpec
from controlplane.domain.policy import Decision
from controlplane.rubick.invariants import violations
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from tests.builders import JobBuilder, World, a_cluster, a_node
from tests.rubick.worlds import Scaling, a_known_job


def running(*, guaranteed: bool = False) -> World:
    """A job runs on four accelerators since a moment."""
    world = a_cluster("fifo").with_node(a_node("n0", 4, "gpu"), a_node("n1", 4, "gpu"))
    job = a_known_job("job", 4, 90_000, asked=4, guaranteed=guaranteed)
    world.submit(job.on_one_node()).settle().passes(1.0)
    assert world.held("job") == 4
    return world


def edited(world: World, edit: str) -> World:
    known = JobBuilder(world.job("job").job)
    spec = known.job.spec
    request = spec.accelerators
    return world.update(
        {
            "priority": known.with_priority(3),
            "as before": known,
            "one more plan": known.under(*map(str, spec.plans), "dp4-z1"),
            "other plans": known.under("dp2", "dp2-z1"),
            "fewer": known.under("dp1", "dp2").wanting(1, 2),
            "other nodes": known.selecting(zone="moon"),
            "other type": JobBuilder(replace(known.job, spec=_with(spec, type="other"))),
            "more cores": JobBuilder(
                replace(known.job, spec=_with(spec, cpu_cores_each=request.cpu_cores_each + 99))
            ),
        }[edit]
    )


def _with(spec: JobSpec, **changes: Any) -> JobSpec:
    return replace(spec, accelerators=replace(spec.accelerators, **changes))


def broken(world: World, *, cool_down_seconds: float) -> list[str]:
    """What is said if the job is told to give back what it has."""
    snapshot = world.state.snapshot(world.now)
    found = violations(snapshot, Decision({}, {}), Scaling(), cool_down_seconds=cool_down_seconds)
    return [each.text for each in found if each.jobs == (JobUid("job"),)]


NOTHING_NOW = pytest.mark.parametrize("edit", ["priority", "as before", "one more plan"])
AT_ONCE = pytest.mark.parametrize(
    "edit", ["other plans", "fewer", "other nodes", "other type", "more cores"]
)


@NOTHING_NOW
def test_an_edit_that_asks_for_no_change_leaves_the_job_in_peace(edit: str) -> None:
    world = edited(running(), edit)
    assert world.job("job").job.generation == 2
    (text,) = broken(world, cool_down_seconds=600.0)
    assert "its last change was just now" in text


@NOTHING_NOW
def test_an_edit_that_asks_for_no_change_costs_no_promise(edit: str) -> None:
    world = edited(running(guaranteed=True), edit)
    (text,) = broken(world, cool_down_seconds=0.0)
    assert text == "job is guaranteed and would lose what it has"


@AT_ONCE
def test_who_is_asked_for_something_else_may_be_changed_at_once(edit: str) -> None:
    world = edited(running(guaranteed=True), edit)
    assert broken(world, cool_down_seconds=600.0) == []


def test_who_may_not_keep_its_plan_changes_where_it_is() -> None:
    world = a_cluster().under(Rubick(lambda _: Scaling(), RubickSettings(switch_seconds=1.0)))
    world.with_node(a_node("n0", 4, "gpu"), a_node("n1", 4, "gpu"))
    world.submit(a_known_job("first", 4, 90_000, asked=4).under("dp4").wanting(4, 4)).settle()
    world.submit(a_known_job("job", 4, 90_000, asked=2).under("dp2").wanting(2, 2)).settle()
    world.withdraw("first").settle()
    there = world.attempt("job").placement.nodes
    assert there == {"n1"}
    world.update(JobBuilder(world.job("job").job).under("dp1").wanting(1, 1)).settle()
    attempt = world.attempt("job")
    assert (attempt.number, str(attempt.plan_in_force)) == (1, "dp1")
    assert attempt.placement.nodes == there
