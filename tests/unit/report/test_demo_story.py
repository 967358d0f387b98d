"""The demo's course on written answers: which order comes when, and what ends it."""

import pytest

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.cli.demo_story import DemoFailedError, Scene, Story, held


def a_job(
    name: str,
    stage: str,
    step: int,
    accelerators: int,
    total: int = 500,
    switch: str = "",
    asked_for: str = "",
) -> jobs_pb2.Job:
    """A job as the control plane shows it.

    Args:
        name: Its name.
        stage: Where it stands.
        step: How far it has come.
        accelerators: How many it holds.
        total: How many steps it is to do.
        switch: Kind of the change that led it there; none if empty.
        asked_for: Plan that it is on its way to.
    """
    units = [
        common_pb2.LaunchUnit(index=number, accelerators=[f"slot-{number}"])
        for number in range(accelerators)
    ]
    progress = common_pb2.Progress(step=step, steps_total=total)
    reason = common_pb2.Reason(code="RankFailed", message=f"{name}: rank 1 exited with 1")
    plan = {2: "pp2.1f1b-ga4", 4: "dp4"}.get(accelerators, "")
    made = jobs_pb2.Switch(
        kind=switch, accelerators_after=accelerators, step=step - 1, stood_still_seconds=1.25
    )
    status = jobs_pb2.JobStatus(
        stage=stage,
        units=units,
        progress=progress,
        reason=reason,
        plan=plan,
        plan_asked_for=asked_for,
        switches=[made] if switch else (),
    )
    return jobs_pb2.Job(uid=f"u-{name}", name=name, status=status)


class Stage:
    """Records what the story orders and says."""

    def __init__(self) -> None:
        self.submitted = 0
        self.said: list[str] = []
        self.story = Story(
            elastic="u-gpt",
            accelerators=4,
            submit_guest=self.submit,
            say=self.said.append,
            late_at=200.0,
            over_at=240.0,
        )

    def submit(self) -> str:
        self.submitted += 1
        return "u-vit"

    def look(self, now: float, *jobs: jobs_pb2.Job) -> bool:
        return self.story.look(jobs, now)


def shared() -> Stage:
    stage = Stage()
    assert not stage.look(30, a_job("gpt", "Running", 120, 4))
    return stage


def grown() -> Stage:
    stage = shared()
    stage.look(90, a_job("gpt", "Running", 300, 2), a_job("vit", "Succeeded", 300, 0))
    return stage


def test_the_guest_comes_once_and_only_when_the_first_job_trains_on_everything() -> None:
    stage = Stage()
    for job in (
        a_job("gpt", "Queued", 0, 0),
        a_job("gpt", "Starting", 0, 4),
        a_job("gpt", "Running", 99, 4),
        a_job("gpt", "Running", 150, 2),
    ):
        assert not stage.look(10, job)
    assert stage.submitted == 0
    for step in (100, 101, 102):
        stage.look(20, a_job("gpt", "Running", step, 4))
    assert (stage.submitted, stage.story.scene) == (1, Scene.SHARED)


def test_a_short_job_still_shows_enough_steps_first() -> None:
    stage = Stage()
    stage.look(10, a_job("gpt", "Running", 39, 4, total=100))
    assert stage.submitted == 0
    stage.look(11, a_job("gpt", "Running", 40, 4, total=100))
    assert stage.submitted == 1


def test_the_whole_course_ends_when_the_first_job_is_done() -> None:
    stage = shared()
    assert not stage.look(40, a_job("gpt", "Stopping", 125, 4))
    assert not stage.look(60, a_job("gpt", "Running", 200, 2), a_job("vit", "Running", 9, 2))
    assert not stage.look(90, a_job("gpt", "Running", 300, 2), a_job("vit", "Succeeded", 300, 0))
    assert not stage.look(100, a_job("gpt", "Running", 310, 4))
    assert stage.look(130, a_job("gpt", "Succeeded", 500, 0))
    assert stage.story.scene is Scene.OVER


@pytest.mark.parametrize(
    ("switch", "way"),
    [
        ("Memory", ", without a restart: it stood still for 1.2 s after step {}"),
        ("Restart", ", by a restart: it stood still for 1.2 s after step {}"),
        ("", ""),
    ],
)
def test_it_tells_in_words_under_which_plan_the_first_job_goes_on_and_how(
    switch: str, way: str
) -> None:
    stage = shared()
    for _ in range(2):
        shrunk = a_job("gpt", "Running", 200, 2, switch=switch)
        stage.look(60, shrunk, a_job("vit", "Running", 9, 2))
    stage.look(90, a_job("gpt", "Running", 300, 2), a_job("vit", "Succeeded", 300, 0))
    stage.look(100, a_job("gpt", "Running", 310, 4, switch=switch))
    assert stage.said == [
        "gpt has done 120 steps on all 4 accelerators as dp4 (data parallel over 4); "
        "now a second job arrives",
        "gpt goes on as pp2.1f1b-ga4 (a pipeline of 2 ranks (1f1b), 4 micro-batches) beside vit"
        + way.format(199),
        "vit is done; gpt can have its accelerators back",
        "gpt trains on all 4 accelerators again, as dp4 (data parallel over 4)" + way.format(309),
    ]


def test_while_it_is_on_its_way_to_another_plan_nothing_is_said() -> None:
    stage = shared()
    # Those that left are gone, and the others have not told yet; later the newcomers start.
    stage.look(
        60, a_job("gpt", "Running", 121, 2, asked_for="pp2.1f1b-ga4"), a_job("vit", "", 0, 0)
    )
    stage.look(90, a_job("gpt", "Running", 300, 2), a_job("vit", "Succeeded", 300, 0))
    said = len(stage.said)
    assert not stage.look(95, a_job("gpt", "Running", 301, 4, asked_for="dp4"))
    assert len(stage.said) == said
    # Only steps after the change count as seen.
    assert not stage.look(201, a_job("gpt", "Running", 360, 4, asked_for="dp4"))
    assert not stage.look(202, a_job("gpt", "Running", 361, 4))
    assert stage.look(211, a_job("gpt", "Running", 401, 4))


def test_a_first_job_that_is_done_before_it_grew_back_says_what_would_help() -> None:
    with pytest.raises(DemoFailedError, match=r"before it had grown back.*--scale"):
        grown().look(100, a_job("gpt", "Succeeded", 500, 0))
    stage, done = grown(), a_job("gpt", "Succeeded", 500, 0)
    done.status.switches.add(kind="Memory", accelerators_after=4)
    assert stage.look(100, done)


def test_it_ends_early_only_after_enough_steps_on_everything() -> None:
    stage = grown()
    # Late, but not grown back yet: its old two accelerators do not count.
    assert not stage.look(201, a_job("gpt", "Running", 360, 2))
    assert not stage.look(205, a_job("gpt", "Running", 361, 4))
    assert not stage.look(210, a_job("gpt", "Running", 400, 4))
    assert stage.look(211, a_job("gpt", "Running", 401, 4))


def test_it_does_not_end_early_while_there_is_time() -> None:
    stage = grown()
    assert not stage.look(120, a_job("gpt", "Running", 310, 4))
    assert not stage.look(199, a_job("gpt", "Running", 480, 4))


def test_a_failed_job_ends_it_with_the_reason() -> None:
    with pytest.raises(DemoFailedError, match="vit failed: vit: rank 1 exited with 1"):
        shared().look(40, a_job("gpt", "Running", 130, 2), a_job("vit", "Failed", 0, 0))


@pytest.mark.parametrize("make", [Stage, shared])
def test_a_first_job_that_is_done_too_early_says_what_would_help(make: type[Stage]) -> None:
    with pytest.raises(DemoFailedError, match="--scale"):
        make().look(50, a_job("gpt", "Succeeded", 500, 0), a_job("vit", "Succeeded", 300, 0))


def test_a_first_job_that_is_gone_ends_it() -> None:
    with pytest.raises(DemoFailedError, match="withdraw"):
        Stage().look(5)


@pytest.mark.parametrize(
    ("make", "waits"),
    [
        (Stage, "gpt to train on all accelerators"),
        (shared, "vit to finish"),
        (grown, "gpt to grow back"),
    ],
)
def test_when_the_time_is_up_it_says_what_it_waited_for(make: type[Stage], waits: str) -> None:
    stage = make()
    jobs = (a_job("gpt", "Starting", 90, 2), a_job("vit", "Running", 7, 2))
    with pytest.raises(DemoFailedError, match=waits):
        stage.look(240, *jobs)


def test_held_counts_every_unit() -> None:
    assert held(a_job("gpt", "Running", 1, 3)) == 3
