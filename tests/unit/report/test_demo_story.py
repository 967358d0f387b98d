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
        self.submitted: list[str] = []
        self.said: list[str] = []
        self.explained: list[str] = []
        self.learnt: set[str] = set()
        self.story = Story(
            elastic="u-gpt",
            submit_promised=lambda: self.submit("u-llama"),
            submit_guest=lambda: self.submit("u-vit"),
            explain=self.explained.append,
            say=self.said.append,
            over_at=240.0,
        )

    def submit(self, uid: str) -> str:
        self.submitted.append(uid)
        return uid

    def look(self, now: float, *jobs: jobs_pb2.Job) -> bool:
        return self.story.look(jobs, self.learnt, now)


def alone() -> Stage:
    stage = Stage()
    stage.learnt.add("u-gpt")
    return stage


def promised() -> Stage:
    stage = alone()
    assert not stage.look(30, a_job("gpt", "Running", 120, 4))
    return stage


def shared() -> Stage:
    stage = promised()
    stage.look(50, a_job("gpt", "Running", 130, 2), a_job("llama", "Running", 10, 2))
    return stage


def last() -> Stage:
    stage = shared()
    done = a_job("llama", "Succeeded", 300, 0), a_job("vit", "Succeeded", 300, 0)
    stage.look(90, a_job("gpt", "Running", 300, 2), *done)
    return stage


def test_the_guaranteed_job_comes_once_and_only_when_the_first_ones_steps_were_learnt() -> None:
    stage = Stage()
    for job in (
        a_job("gpt", "Queued", 0, 0),
        a_job("gpt", "Starting", 0, 4),
        a_job("gpt", "Running", 49, 4),
        a_job("gpt", "Running", 150, 4),
    ):
        assert not stage.look(10, job)
    assert stage.submitted == []
    stage.learnt.add("u-gpt")
    stage.look(20, a_job("gpt", "Running", 49, 4))
    stage.look(20, a_job("gpt", "Running", 151, 4, asked_for="dp2"))
    assert stage.submitted == []
    for step in (151, 152):
        stage.look(20, a_job("gpt", "Running", step, 4))
    assert (stage.submitted, stage.story.scene) == (["u-llama"], Scene.PROMISED)
    assert stage.explained == ["u-gpt"]


@pytest.mark.parametrize(("total", "arrival"), [(100, 40), (1000, 100)])
def test_enough_steps_are_shown_before_the_next_job_comes(total: int, arrival: int) -> None:
    stage = alone()
    stage.look(10, a_job("gpt", "Running", arrival - 1, 4, total=total))
    assert stage.submitted == []
    stage.look(11, a_job("gpt", "Running", arrival, 4, total=total))
    assert stage.submitted == ["u-llama"]


def test_nothing_waits_for_a_number_of_accelerators() -> None:
    """What the policy does is its own business: it may leave everything as it is."""
    stage = alone()
    stage.look(10, a_job("gpt", "Running", 100, 2))
    stage.look(20, a_job("gpt", "Running", 110, 2), a_job("llama", "Running", 12, 1))
    assert stage.submitted == ["u-llama", "u-vit"]
    done = a_job("llama", "Succeeded", 300, 0), a_job("vit", "Succeeded", 300, 0)
    stage.look(30, a_job("gpt", "Running", 120, 2), *done)
    stage.learnt.update(("u-llama", "u-vit"))
    assert stage.look(40, a_job("gpt", "Succeeded", 500, 0), *done)


def test_the_third_job_comes_when_the_guaranteed_one_trains_or_is_done_already() -> None:
    stage = promised()
    gpt = a_job("gpt", "Running", 130, 2)
    for llama in (
        a_job("llama", "Queued", 0, 0),
        a_job("llama", "Starting", 0, 2),
        a_job("llama", "Running", 9, 2),
    ):
        stage.look(40, gpt, llama)
    assert stage.submitted == ["u-llama"]
    stage.look(50, gpt, a_job("llama", "Running", 10, 2))
    assert (stage.submitted, stage.story.scene) == (["u-llama", "u-vit"], Scene.SHARED)
    fast = promised()
    fast.look(40, gpt, a_job("llama", "Succeeded", 300, 0))
    assert fast.submitted == ["u-llama", "u-vit"]
    assert "llama is done already" in fast.said


def test_the_whole_course_ends_when_all_are_done_and_learnt() -> None:
    stage = shared()
    gpt, llama = a_job("gpt", "Running", 200, 2), a_job("llama", "Running", 100, 2)
    assert not stage.look(60, gpt, llama, a_job("vit", "Queued", 0, 0))
    assert not stage.look(
        70, gpt, a_job("llama", "Succeeded", 300, 0), a_job("vit", "Running", 10, 1)
    )
    done = a_job("llama", "Succeeded", 300, 0), a_job("vit", "Succeeded", 300, 0)
    assert not stage.look(80, gpt, *done)
    assert stage.story.scene is Scene.LAST
    assert not stage.look(90, a_job("gpt", "Running", 310, 4), *done)
    stage.learnt.add("u-llama")
    assert not stage.look(130, a_job("gpt", "Succeeded", 500, 0), *done)
    stage.learnt.add("u-vit")
    assert stage.look(131, a_job("gpt", "Succeeded", 500, 0), *done)
    assert stage.explained == ["u-gpt", "u-gpt", "u-llama", "u-vit", "u-vit", "u-gpt"]


@pytest.mark.parametrize(
    ("switch", "way"),
    [
        ("Memory", ", without a restart: it stood still for 1.2 s after step {}"),
        ("Restart", ", by a restart: it stood still for 1.2 s after step {}"),
        ("", ""),
    ],
)
def test_it_tells_in_words_what_was_done_and_how(switch: str, way: str) -> None:
    stage = promised()
    llama, vit = a_job("llama", "Running", 11, 2), a_job("vit", "Queued", 0, 0)
    for _ in range(2):
        stage.look(60, a_job("gpt", "Running", 200, 2, switch=switch), llama)
    for _ in range(2):
        stage.look(70, a_job("gpt", "Running", 210, 2, switch=switch), llama, vit)
    done = a_job("llama", "Succeeded", 300, 0), a_job("vit", "Succeeded", 600, 0)
    stage.look(90, a_job("gpt", "Running", 300, 2), *done)
    for _ in range(2):
        stage.look(100, a_job("gpt", "Running", 310, 4, switch=switch), *done)
    assert stage.said == [
        "gpt has done 120 steps on 4 accelerators as dp4 (data parallel over 4), and what they "
        "take was learnt from them",
        "now a second job arrives, which is guaranteed",
        "gpt goes on as pp2.1f1b-ga4 (a pipeline of 2 ranks (1f1b), 4 micro-batches) beside llama"
        + way.format(199),
        "llama has begun as pp2.1f1b-ga4 (a pipeline of 2 ranks (1f1b), 4 micro-batches)",
        "now a third job arrives, which nothing is promised",
        "vit waits",
        "llama is done after 300 steps",
        "vit is done after 600 steps",
        "gpt trains on 4 accelerators again, as dp4 (data parallel over 4)" + way.format(309),
    ]


def test_while_it_is_on_its_way_to_another_plan_nothing_is_said() -> None:
    stage = promised()
    # Those that left are gone, and the others have not told yet; later the newcomers start.
    said = len(stage.said)
    on_its_way = a_job("gpt", "Running", 121, 2, asked_for="pp2.1f1b-ga4")
    stage.look(60, on_its_way, a_job("llama", "Starting", 0, 2))
    assert len(stage.said) == said
    stage = last()
    said = len(stage.said)
    done = a_job("llama", "Succeeded", 300, 0), a_job("vit", "Succeeded", 300, 0)
    assert not stage.look(110, a_job("gpt", "Running", 301, 4, asked_for="dp4"), *done)
    assert len(stage.said) == said


def test_it_is_told_why_the_first_job_did_not_grow_once_it_had_time_to() -> None:
    stage = last()
    explained = len(stage.explained)
    done = a_job("llama", "Succeeded", 300, 0), a_job("vit", "Succeeded", 300, 0)
    stage.look(95, a_job("gpt", "Running", 320, 2), *done)
    assert len(stage.explained) == explained
    for now in (103, 104):
        stage.look(now, a_job("gpt", "Running", 330, 2), *done)
    assert stage.explained[explained:] == ["u-gpt"]
    assert stage.said[-1] == "gpt stays on 2 accelerators"
    stage.look(110, a_job("gpt", "Running", 340, 4), *done)
    assert stage.said[-1].startswith("gpt trains on 4 accelerators again")


def test_a_failed_job_ends_it_with_the_reason() -> None:
    with pytest.raises(DemoFailedError, match="llama failed: llama: rank 1 exited with 1"):
        promised().look(40, a_job("gpt", "Running", 130, 2), a_job("llama", "Failed", 0, 0))


def test_a_first_job_that_is_done_too_early_says_what_would_help() -> None:
    with pytest.raises(DemoFailedError, match="--scale"):
        alone().look(50, a_job("gpt", "Succeeded", 500, 0))


def test_a_first_job_that_is_gone_ends_it() -> None:
    with pytest.raises(DemoFailedError, match="withdraw"):
        Stage().look(5)


@pytest.mark.parametrize(
    ("make", "waits"),
    [
        (Stage, "the first job to train, and its steps to be learnt"),
        (promised, "the guaranteed job to train"),
        (shared, "the guaranteed job and the third one to finish"),
        (last, "the first job to finish, and the steps of all to be learnt"),
    ],
)
def test_when_the_time_is_up_it_says_what_it_waited_for(make: type[Stage], waits: str) -> None:
    stage = make()
    jobs = (a_job("gpt", "Starting", 90, 2), a_job("llama", "Starting", 0, 2))
    with pytest.raises(DemoFailedError, match=waits) as failure:
        stage.look(240, *jobs, a_job("vit", "Queued", 7, 0))
    assert (
        "vit is Queued at step 7 (vit: rank 1 exited with 1), nothing learnt of it"
        in str(failure.value)
        or not stage.story.guest
    )


def test_held_counts_every_unit() -> None:
    assert held(a_job("gpt", "Running", 1, 3)) == 3
