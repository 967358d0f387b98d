"""When jobs are predicted to start and to end, and what came true of it.

A forecast is made beside the loop and is of a state that has passed; it carries the instant of that
state, which is its age. Two of each job are counted: the first after its submission and the first
after its start. When the job ends they become outcomes, and from outcomes follows how wide
intervals must be.
"""

from dataclasses import dataclass

from controlplane.domain.clock import SECOND, Duration, Instant
from controlplane.domain.ids import JobUid, QueueName, SequenceNumber
from controlplane.domain.lifecycle import Stage

FORECAST_COVERAGE = 0.9
"""Share of the ends that should lie within their intervals: 5 % before, 5 % after."""

COUNTED_WITHIN = Duration(600 * SECOND)
"""A first forecast later than this after the submission, or the start, is not counted: it had seen
what one at that instant could not.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Between which instants something happens.

    Attributes:
        low: Not before, as far as the coverage goes.
        median: As likely before as after.
        high: Not after.
    """

    low: Instant
    median: Instant
    high: Instant

    def holds(self, at: Instant) -> bool:
        """Whether an instant is within."""
        return self.low <= at <= self.high


@dataclass(frozen=True, slots=True)
class JobForecast:
    """When a job starts and ends, as predicted at an instant.

    Attributes:
        uid: The job.
        generation: Of its spec; of another one nothing is said.
        made_at: Instant of the state that it is made of.
        started: Whether the job had started by then.
        coverage: Share of cases in which the truth should lie inside.
        end: When it ends; None if nobody can say.
        start: When it holds accelerators first; None if it did already, or nobody can say.
        played_end: What was played of the end, before it was corrected by outcomes.
        played_start: The same of the start.
        missing: Outcomes that are missing until the end's interval is calibrated; 0 if it is.
        missing_starts: The same of the start.
        accelerator_type: On which it was played last; empty where it never held any.
    """

    uid: JobUid
    generation: int
    made_at: Instant
    started: bool
    coverage: float
    end: Span | None = None
    start: Span | None = None
    played_end: Span | None = None
    played_start: Span | None = None
    missing: int = 0
    missing_starts: int = 0
    accelerator_type: str = ""


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What was predicted of many jobs at once.

    Attributes:
        made_of: Last event of the state.
        made_at: Its instant.
        plays: How often it was played on, each time with other run times.
        took_seconds: What that took.
        jobs: Of each job about which something can be said.
    """

    made_of: SequenceNumber
    made_at: Instant
    plays: int
    took_seconds: float
    jobs: tuple[JobForecast, ...]


@dataclass(frozen=True, slots=True)
class KnownForecasts:
    """What is kept of a job's forecasts while it has not ended.

    Attributes:
        newest: The newest.
        at_submission: The first after its submission; None if that came too late to be counted.
        at_start: The first after its start; likewise.
        overdue_at: When it was told that it trains on past what was predicted; None if it was not.
    """

    newest: JobForecast
    at_submission: JobForecast | None = None
    at_start: JobForecast | None = None
    overdue_at: Instant | None = None

    @property
    def counted(self) -> JobForecast | None:
        """The last one that is counted: what it is held to."""
        return self.at_start or self.at_submission


@dataclass(frozen=True, slots=True)
class ForecastOutcome:
    """A forecast that was counted, and what came true.

    Attributes:
        forecast: What was predicted.
        job: Namespace and name.
        queue: The job's queue.
        accelerator_type: On which it ended.
        started_at: When it started first; None if it never did.
        ended_at: When it ended.
        stage: How it ended: succeeded or failed. Nobody predicts failures, so only the ends of
            those that succeeded are counted.
    """

    forecast: JobForecast
    job: str
    queue: QueueName
    accelerator_type: str
    started_at: Instant | None
    ended_at: Instant
    stage: Stage

    @property
    def is_counted(self) -> bool:
        """Whether the end was predicted and could come true."""
        return self.stage is Stage.SUCCEEDED and self.forecast.end is not None

    @property
    def inside(self) -> bool:
        """Whether the end lay within its interval."""
        end = self.forecast.end
        return end is not None and end.holds(self.ended_at)
