"""Fits models to what jobs tell, beside the loop: what steps take is learnt while jobs run.

What there is to learn is decided purely (``lessons``), and so is a fit (``learn``); here is when
and where: one after the other, in a thread, from the newest state. A fit goes through the door like
any event. Nothing that goes wrong here is more than a line in the log: the policy goes on with what
it knew.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from math import isnan

import structlog

from controlplane.domain.clock import Instant
from controlplane.domain.event import MeasurementsImported, ModelFitted, PlanObserved
from controlplane.domain.lesson import Learnt, Lesson
from controlplane.domain.observation import Observation
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.engine.state import SequencedEvent

Lessons = Callable[[Iterable[Observation], Mapping[str, StepTimeFit]], Iterable[Lesson]]
"""What there is to learn from what was told, given what is known."""

_OUTLIERS_TOLD = 5

log = structlog.get_logger(__name__)


class Learner:
    """Learns as long as it runs."""

    def __init__(
        self, feed: StateFeed, door: Door, lessons: Lessons, learn: Callable[[Lesson], Learnt]
    ) -> None:
        """Knows nothing of its own.

        Args:
            feed: Has the newest state.
            door: Takes fits in.
            lessons: What there is to learn.
            learn: Fits; may take long.
        """
        self._feed = feed
        self._door = door
        self._lessons = lessons
        self._learn = learn
        self._news = asyncio.Event()
        # Of what could not be learnt, the newest that was told then: more of it is tried again.
        self._in_vain: dict[str, Instant] = {}

    def look(self, events: Iterable[SequencedEvent]) -> None:
        """Events were folded; learns if someone told what plans take."""
        if any(isinstance(each.event, PlanObserved | MeasurementsImported) for each in events):
            self._news.set()

    async def run(self) -> None:
        """Learns what there is, and then whatever comes."""
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.learn_what_there_is()
            except Exception as error:
                log.warning("nothing could be learnt", why=f"{type(error).__name__}: {error}")

    async def learn_what_there_is(self) -> None:
        """Fits every type of which there is news, once."""
        state = self._feed.state
        told, fits = tuple(state.observations.values()), dict(state.fits)
        found = await asyncio.to_thread(lambda: tuple(self._lessons(told, fits)))
        self._in_vain = {
            lesson.key: at for lesson in found if (at := self._in_vain.get(lesson.key)) is not None
        }
        for lesson in found:
            if self._in_vain.get(lesson.key) == lesson.at:
                continue
            self._in_vain[lesson.key] = lesson.at
            try:
                learnt = await asyncio.to_thread(self._learn, lesson)
                if learnt.fit is not None:
                    await self._door.append_and_fold(ModelFitted(learnt.fit, self._door.now()))
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                log.warning("a model could not be fitted", model=lesson.key, why=why)
            else:
                _tell(lesson, learnt)


def _tell(lesson: Lesson, learnt: Learnt) -> None:
    what = "a fit was no better and is left"
    if learnt.fit is not None:
        what = "a model was fitted"
    elif isnan(learnt.error):
        what = "nothing was learnt: no measurement can be true"
    log.info(
        what,
        model=lesson.key,
        rows=len(lesson.told),
        error_before=round(learnt.error_before, 3),
        error=round(learnt.error, 3),
    )
    for outlier in learnt.outliers[:_OUTLIERS_TOLD]:
        log.warning("a measurement is far from what is predicted", model=lesson.key, row=outlier)
