"""Learning beside the loop: what goes through the door, and what goes wrong without harm."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.event import Event, MeasurementsImported, ModelFitted
from controlplane.domain.ids import Attempt, JobUid, SequenceNumber
from controlplane.domain.lesson import Learnt, Lesson
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.ports import Told
from controlplane.edges.learning import Learner
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.state import ClusterState, SequencedEvent
from headrace.api.profile_rows import Asked, PlanRow, Status

ROW = PlanRow(Asked("m", 1, 1, 1, "fp32"), "dp1", Status.MEASURED)
TOLD = Observation(JobUid("a"), Attempt(1), 1, Instant(1), ROW)


def a_fit(kind: str) -> StepTimeFit:
    return StepTimeFit("m", kind, (), (), 0.1, 1.6, 0.9, 1, 1.0, Instant(1))


def a_lesson(kind: str, at: int = 1) -> Lesson:
    told = Observation(TOLD.uid, TOLD.attempt, TOLD.step, Instant(at), TOLD.row)
    return Lesson("m", kind, (told,), None, None)


class FoldedLog:
    """Stores at once, and publishes what follows."""

    def __init__(self, feed: StateFeed) -> None:
        self.feed = feed
        self.stored: list[Event] = []

    def append(self, event: Event, told: Told | None = None) -> "asyncio.Future[SequenceNumber]":
        self.stored.append(event)
        number = SequenceNumber(len(self.stored))
        self.feed.publish(self.feed.state.fold([SequencedEvent(number, event)]), number)
        future: asyncio.Future[SequenceNumber] = asyncio.get_running_loop().create_future()
        future.set_result(number)
        return future


class School:
    """A learner, with what it is to learn and what becomes of it."""

    def __init__(self, learn: Callable[[Lesson], Learnt], *lessons: Lesson) -> None:
        self.lessons = list(lessons)
        self.asked = threading.Event()
        self.feed = StateFeed(ClusterState.empty(), lambda: 0)
        self.log = FoldedLog(self.feed)
        door = Door(WallClock(), self.feed)
        door.open(self.log)
        self.learner = Learner(self.feed, door, self._left, learn)

    def _left(
        self, told: Iterable[Observation], fits: Mapping[str, StepTimeFit]
    ) -> Iterable[Lesson]:
        self.asked.set()
        return [lesson for lesson in self.lessons if lesson.key not in fits]

    def learns(self) -> list[str]:
        """Once; returns what is known then."""
        asyncio.run(self.learner.learn_what_there_is())
        return sorted(self.feed.state.fits)


def well(lesson: Lesson) -> Learnt:
    return Learnt(a_fit(lesson.accelerator_type), 0.5, 0.1, ())


def test_a_fit_is_an_event_like_any() -> None:
    school = School(well, a_lesson("cpu"), a_lesson("gpu"))
    assert school.learns() == ["m on cpu", "m on gpu"]
    assert [type(event) for event in school.log.stored] == [ModelFitted, ModelFitted]
    assert school.learns() == ["m on cpu", "m on gpu"]
    assert len(school.log.stored) == 2


def test_it_learns_when_someone_told_something() -> None:
    async def test() -> list[str]:
        school = School(well)
        learning = asyncio.create_task(school.learner.run())
        assert await asyncio.to_thread(school.asked.wait, 60)
        school.lessons = [a_lesson("gpu")]
        imported = SequencedEvent(SequenceNumber(2), MeasurementsImported((ROW,), "ann"))
        school.learner.look([imported])
        await school.feed.until_folded(SequenceNumber(1), 60)
        learning.cancel()
        return sorted(school.feed.state.fits)

    assert asyncio.run(test()) == ["m on gpu"]


def test_what_cannot_be_fitted_is_told_and_the_others_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def learn(lesson: Lesson) -> Learnt:
        if lesson.accelerator_type == "cpu":
            raise ValueError("no measurement")
        return well(lesson)

    school = School(learn, a_lesson("cpu"), a_lesson("gpu"))
    assert school.learns() == ["m on gpu"]
    told = capsys.readouterr().out
    assert "m on cpu" in told
    assert "no measurement" in told


def test_a_fit_that_is_no_better_is_not_tried_again_before_more_was_told() -> None:
    tried: list[int] = []

    def learn(lesson: Lesson) -> Learnt:
        tried.append(lesson.at)
        return Learnt(None, 0.1, 0.2, ())

    school = School(learn, a_lesson("cpu", at=1))
    assert school.learns() == school.learns() == []
    school.lessons = [a_lesson("cpu", at=2)]
    assert school.learns() == []
    assert tried == [1, 2]
    assert school.log.stored == []


def test_rows_far_off_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    school = School(lambda _: Learnt(None, 0.1, 0.2, ("dp1 on 1: 9.00 times",)), a_lesson("cpu"))
    school.learns()
    assert "dp1 on 1: 9.00 times" in capsys.readouterr().out
