"""The demo's course: what has to be seen before the next thing happens. Pure apart from its orders.

alone --its steps were learnt--> promised --the promised job trains--> shared --both others are
done--> last --done, and all that was to be learnt is--> over

What the policy does meanwhile is its own business: nothing here waits for a number of accelerators.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from headrace.api.counted import counted
from headrace.api.generated import jobs_pb2
from headrace.cli.plan_words import explained

ARRIVAL_SHARE = 0.1
"""Share of the first job's steps after which the next one is submitted."""

ENOUGH_STEPS = 40
"""Steps that show how a loss goes on before anything is changed."""

_FIRST_STEPS = 10

_PEACE_SECONDS = 12.0
"""How long after the others' end it is told why the first job has not grown, if it has not."""


class Scene(StrEnum):
    """Where the demo is."""

    ALONE = "alone"
    PROMISED = "promised"
    SHARED = "shared"
    LAST = "last"
    OVER = "over"


class DemoFailedError(Exception):
    """The demo cannot go on; the sentence says why."""


@dataclass(slots=True)
class Story:
    """Follows the three jobs and gives the orders.

    Attributes:
        elastic: Uid of the job that is there from the start.
        submit_promised: Submits the guaranteed job and returns its uid.
        submit_guest: Submits the third job and returns its uid.
        explain: Tells why a job, by its uid, stands where it stands.
        say: Tells the person in front of it what happens.
        over_at: When to give up, in seconds since 1970.
        promised: Uid of the guaranteed job, once it is submitted.
        guest: Uid of the third job, once it is submitted.
        scene: Where the demo is.
    """

    elastic: str
    submit_promised: Callable[[], str]
    submit_guest: Callable[[], str]
    explain: Callable[[str], None]
    say: Callable[[str], None]
    over_at: float
    promised: str = ""
    guest: str = ""
    scene: Scene = Scene.ALONE
    _told: set[str] = field(default_factory=set)
    _most: int = 0
    _last_since: float = 0.0

    @property
    def uids(self) -> tuple[str, ...]:
        """The jobs that were submitted, in that order."""
        return tuple(uid for uid in (self.elastic, self.promised, self.guest) if uid)

    def look(self, jobs: Iterable[jobs_pb2.Job], learnt: Collection[str], now: float) -> bool:
        """Looks at the jobs once; gives the next order if it is time.

        Args:
            jobs: As the control plane shows them.
            learnt: Uids of jobs whose own steps a fit knows.
            now: Seconds since 1970.

        Returns:
            Whether the demo is over.

        Raises:
            DemoFailedError: A job failed, or it takes too long.
        """
        by_uid = {job.uid: job for job in jobs}
        elastic = by_uid.get(self.elastic)
        promised, guest = by_uid.get(self.promised), by_uid.get(self.guest)
        for job in (elastic, promised, guest):
            if job is not None and job.status.stage == "Failed":
                raise DemoFailedError(f"{job.name} failed: {job.status.reason.message}")
        if elastic is None:
            raise DemoFailedError("the first job is gone; did someone withdraw it?")
        match self.scene:
            case Scene.ALONE:
                self._alone(elastic, learnt)
            case Scene.PROMISED if promised is not None:
                self._promised(elastic, promised)
            case Scene.SHARED if promised is not None and guest is not None:
                self._shared(promised, guest, now)
            case Scene.LAST:
                self._last(elastic, learnt, now)
        if self.scene is not Scene.OVER and now >= self.over_at:
            raise DemoFailedError(self._too_slow((elastic, promised, guest), learnt))
        return self.scene is Scene.OVER

    def _alone(self, elastic: jobs_pb2.Job, learnt: Collection[str]) -> None:
        status = elastic.status
        if status.stage == "Succeeded":
            raise DemoFailedError(
                f"{elastic.name} was done before the next job could come: this machine is faster "
                "than the demo expects; give it more steps with --scale, for example --scale 5"
            )
        arrival = max(ENOUGH_STEPS, round(ARRIVAL_SHARE * status.progress.steps_total))
        if trains(elastic) and status.progress.step >= arrival and elastic.uid in learnt:
            self._most = held(elastic)
            self.say(
                f"{elastic.name} has done {status.progress.step} steps on "
                f"{counted(held(elastic), 'accelerator')} as {explained(status.plan)}, "
                "and what they take was learnt from them"
            )
            self.explain(elastic.uid)
            self.say("now a second job arrives, which is guaranteed")
            self.promised = self.submit_promised()
            self.scene = Scene.PROMISED

    def _promised(self, elastic: jobs_pb2.Job, promised: jobs_pb2.Job) -> None:
        if trains(elastic) and held(elastic) < self._most and self._first_time("made room"):
            self.say(
                f"{elastic.name} goes on as {explained(elastic.status.plan)} beside "
                f"{promised.name}{_way(elastic)}"
            )
            self.explain(elastic.uid)
        if _is_under_way(promised) or _is_done(promised):
            self.say(
                f"{promised.name} has begun as {explained(promised.status.plan)}"
                if not _is_done(promised)
                else f"{promised.name} is done already"
            )
            self.explain(promised.uid)
            self.say("now a third job arrives, which nothing is promised")
            self.guest = self.submit_guest()
            self.scene = Scene.SHARED

    def _shared(self, promised: jobs_pb2.Job, guest: jobs_pb2.Job, now: float) -> None:
        status = guest.status
        waits = status.stage == "Queued" and bool(status.reason.code) and not held(guest)
        if waits and self._first_time("waits"):
            self.say(f"{guest.name} waits")
            self.explain(guest.uid)
        if _is_under_way(guest) and self._first_time("guest trains"):
            self.say(f"{guest.name} has begun as {explained(status.plan)}")
            self.explain(guest.uid)
        if _is_done(promised) and self._first_time("promised is done"):
            self.say(f"{promised.name} is done after {promised.status.progress.step} steps")
        if _is_done(promised) and _is_done(guest):
            self.say(f"{guest.name} is done after {status.progress.step} steps")
            self._last_since = now
            self.scene = Scene.LAST

    def _last(self, elastic: jobs_pb2.Job, learnt: Collection[str], now: float) -> None:
        if trains(elastic) and held(elastic) >= self._most and self._first_time("grew"):
            self._told.add("why not")
            self.say(
                f"{elastic.name} trains on {counted(held(elastic), 'accelerator')} again, as "
                f"{explained(elastic.status.plan)}{_way(elastic)}"
            )
            self.explain(elastic.uid)
        over = now - self._last_since >= _PEACE_SECONDS
        if trains(elastic) and over and self._first_time("why not"):
            self.say(f"{elastic.name} stays on {counted(held(elastic), 'accelerator')}")
            self.explain(elastic.uid)
        if not _is_done(elastic):
            return
        if self._first_time("elastic is done"):
            self.say(f"{elastic.name} is done after {elastic.status.progress.step} steps")
        if set(self.uids) <= set(learnt):
            self.scene = Scene.OVER

    def _first_time(self, what: str) -> bool:
        """Whether that was not told before."""
        if what in self._told:
            return False
        self._told.add(what)
        return True

    def _too_slow(self, jobs: Iterable[jobs_pb2.Job | None], learnt: Collection[str]) -> str:
        waits = {
            Scene.ALONE: "the first job to train, and its steps to be learnt",
            Scene.PROMISED: "the guaranteed job to train",
            Scene.SHARED: "the guaranteed job and the third one to finish",
            Scene.LAST: "the first job to finish, and the steps of all to be learnt",
        }
        told = [
            f"{job.name} is {job.status.stage} at step {job.status.progress.step}"
            + (f" ({job.status.reason.message})" if job.status.reason.message else "")
            + ("" if job.uid in learnt else ", nothing learnt of it")
            for job in jobs
            if job is not None
        ]
        return (
            f"the time was up while the demo waited for {waits[self.scene]}; {'; '.join(told)}. "
            "On a slow or busy machine give it more time with --limit"
        )


def held(job: jobs_pb2.Job) -> int:
    """Accelerators that a job holds."""
    return sum(len(unit.accelerators) for unit in job.status.units)


def trains(job: jobs_pb2.Job) -> bool:
    """Whether it trains and is not on its way to another plan."""
    return job.status.stage == "Running" and not job.status.plan_asked_for


def _is_under_way(job: jobs_pb2.Job) -> bool:
    """Whether it has trained for long enough that its first steps, which are slow, do not count."""
    return trains(job) and job.status.progress.step >= _FIRST_STEPS


def _is_done(job: jobs_pb2.Job) -> bool:
    return job.status.stage == "Succeeded"


def _way(job: jobs_pb2.Job) -> str:
    """How a job came to the accelerators that it holds; nothing if it does not tell."""
    switch = job.status.switches[-1] if job.status.switches else None
    if switch is None or switch.accelerators_after != held(job):
        return ""
    way = "without a restart" if switch.kind == "Memory" else "by a restart"
    return (
        f", {way}: it stood still for {switch.stood_still_seconds:.1f} s after step {switch.step}"
    )
