"""The demo's course: what has to be seen before the next thing happens. Pure apart from its orders.

alone  --trains on everything-->  shared  --guest done-->  grown  --done, or time is up-->  end
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from headrace.api.generated import jobs_pb2
from headrace.cli.plan_words import explained

ARRIVAL_SHARE = 0.2
"""Share of the first job's steps after which the second job is submitted."""

ENOUGH_STEPS = 40
"""Steps that show how the loss goes on after a reconfiguration."""


class Scene(StrEnum):
    """Where the demo is."""

    ALONE = "alone"
    SHARED = "shared"
    GROWN = "grown"
    OVER = "over"


class DemoFailedError(Exception):
    """The demo cannot go on; the sentence says why."""


@dataclass(slots=True)
class Story:
    """Follows the two jobs and gives the orders.

    Attributes:
        elastic: Uid of the job that is there from the start.
        accelerators: Accelerators of the cluster.
        submit_guest: Submits the second job and returns its uid.
        say: Tells the person in front of it what happens.
        late_at: When to end as soon as enough was seen, in seconds since 1970.
        over_at: When to give up.
        guest: Uid of the second job, once it is submitted.
        scene: Where the demo is.
    """

    elastic: str
    accelerators: int
    submit_guest: Callable[[], str]
    say: Callable[[str], None]
    late_at: float
    over_at: float
    guest: str = ""
    scene: Scene = Scene.ALONE
    _shrunk: bool = False
    _grown_from: int | None = None

    def look(self, jobs: Iterable[jobs_pb2.Job], now: float) -> bool:
        """Looks at the jobs once; gives the next order if it is time.

        Returns:
            Whether the demo is over.

        Raises:
            DemoFailedError: A job failed, or it takes too long.
        """
        by_uid = {job.uid: job for job in jobs}
        elastic, guest = by_uid.get(self.elastic), by_uid.get(self.guest)
        for job in (elastic, guest):
            if job is not None and job.status.stage == "Failed":
                raise DemoFailedError(f"{job.name} failed: {job.status.reason.message}")
        if elastic is None:
            raise DemoFailedError("the first job is gone; did someone withdraw it?")
        match self.scene:
            case Scene.ALONE:
                self._alone(elastic)
            case Scene.SHARED:
                self._shared(elastic, guest)
            case Scene.GROWN:
                self._grown(elastic, now)
            case Scene.OVER:
                pass
        if self.scene is not Scene.OVER and now >= self.over_at:
            raise DemoFailedError(self._too_slow(elastic, guest))
        return self.scene is Scene.OVER

    def _alone(self, elastic: jobs_pb2.Job) -> None:
        status = elastic.status
        self._must_not_be_done(elastic, "before the second job could come")
        arrival = max(ENOUGH_STEPS, round(ARRIVAL_SHARE * status.progress.steps_total))
        if held(elastic) == self.accelerators and status.progress.step >= arrival:
            self.say(
                f"{elastic.name} has done {status.progress.step} steps on all "
                f"{self.accelerators} accelerators as {explained(status.plan)}; "
                "now a second job arrives"
            )
            self.guest = self.submit_guest()
            self.scene = Scene.SHARED

    def _shared(self, elastic: jobs_pb2.Job, guest: jobs_pb2.Job | None) -> None:
        if guest is None:
            return  # submitted, and not in this answer yet
        status = elastic.status
        if trains(elastic) and held(elastic) < self.accelerators and not self._shrunk:
            self._shrunk = True
            self.say(
                f"{elastic.name} goes on as {explained(status.plan)} beside {guest.name}"
                f"{_way(elastic)}"
            )
        if guest.status.stage == "Succeeded":
            self._must_not_be_done(elastic, f"before {guest.name} was")
            self.say(f"{guest.name} is done; {elastic.name} can have its accelerators back")
            self.scene = Scene.GROWN

    def _grown(self, elastic: jobs_pb2.Job, now: float) -> None:
        status = elastic.status
        if status.stage == "Succeeded":
            if self._grown_from is None and not _was_on(elastic, self.accelerators):
                self._must_not_be_done(elastic, "before it had grown back")
            self.say(f"{elastic.name} is done after {status.progress.step} steps")
            self.scene = Scene.OVER
        elif trains(elastic) and held(elastic) == self.accelerators:
            if self._grown_from is None:
                self._grown_from = status.progress.step
                self.say(
                    f"{elastic.name} trains on all {self.accelerators} accelerators again, as "
                    f"{explained(status.plan)}{_way(elastic)}"
                )
            seen = status.progress.step - self._grown_from
            if now >= self.late_at and seen >= ENOUGH_STEPS:
                self.say(
                    f"time is nearly up: {elastic.name} has done {seen} steps since it grew back, "
                    "which is enough to see how its loss goes on"
                )
                self.scene = Scene.OVER

    def _must_not_be_done(self, elastic: jobs_pb2.Job, when: str) -> None:
        if elastic.status.stage == "Succeeded":
            raise DemoFailedError(
                f"{elastic.name} was done {when}: this machine is faster than the demo expects; "
                "give it more steps with --scale, for example --scale 5"
            )

    def _too_slow(self, elastic: jobs_pb2.Job, guest: jobs_pb2.Job | None) -> str:
        waits = {
            Scene.ALONE: f"{elastic.name} to train on all accelerators",
            Scene.SHARED: f"{guest.name if guest else 'the second job'} to finish",
            Scene.GROWN: f"{elastic.name} to grow back and to do {ENOUGH_STEPS} steps",
        }
        told = [
            f"{job.name} is {job.status.stage} at step {job.status.progress.step}"
            + (f" ({job.status.reason.message})" if job.status.reason.message else "")
            for job in (elastic, guest)
            if job is not None
        ]
        return (
            f"the time was up while the demo waited for {waits[self.scene]}; {', '.join(told)}. "
            "On a slow or busy machine give it more time with --limit"
        )


def held(job: jobs_pb2.Job) -> int:
    """Accelerators that a job holds."""
    return sum(len(unit.accelerators) for unit in job.status.units)


def trains(job: jobs_pb2.Job) -> bool:
    """Whether it trains and is not on its way to another plan."""
    return job.status.stage == "Running" and not job.status.plan_asked_for


def _was_on(job: jobs_pb2.Job, accelerators: int) -> bool:
    """Whether a change led it to so many accelerators."""
    return any(one.accelerators_after == accelerators for one in job.status.switches)


def _way(job: jobs_pb2.Job) -> str:
    """How a job came to the accelerators that it holds; nothing if it does not tell."""
    switch = job.status.switches[-1] if job.status.switches else None
    if switch is None or switch.accelerators_after != held(job):
        return ""
    way = "without a restart" if switch.kind == "Memory" else "by a restart"
    return (
        f", {way}: it stood still for {switch.stood_still_seconds:.1f} s after step {switch.step}"
    )
