"""What is known of how long each job's steps take, and how it is known.

What plays the cluster must say how fast every job is wherever the policy puts it, also where nobody
has seen it run. The best that is known of each job is used, and what that was is told.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import exp, inf, log
from statistics import fmean

from controlplane.domain.clock import Instant
from controlplane.domain.ids import JobUid
from controlplane.domain.job import Job, JobSpec
from controlplane.domain.node import Node
from controlplane.domain.offering import plans_of, sizes
from controlplane.domain.placement import Placement
from controlplane.domain.record import JobRecord
from controlplane.domain.step_times import Shares, StepTimes, Way
from controlplane.engine.observations import model_of
from controlplane.engine.state import ClusterState
from controlplane.placing.shares import shares_of
from headrace.api.plan import ExecutionPlan
from simulator.scenario import Arrival

SCALING_EXPONENT = 0.9
"""A job of which only one pace is known is taken to be so much faster on more accelerators."""

_LONGEST_LIST = 5


class Source(StrEnum):
    """How the step times of a job are known; the value is a clause about several jobs."""

    TOLD = "as --step-seconds says"
    FITTED_AND_SEEN = "as predicted, times by how much jobs of that model differ from it now"
    FITTED = "as predicted by what was fitted to jobs of the same model"
    PREDICTED = "as predicted by sizes alone, for nothing was measured: they may be far off"
    SEEN = "as each told last"
    ALIKE = "as jobs of the same model and batch told"
    COMMAND = "a command of its own"
    NOTHING = "nobody knows what its steps take"


SCALED = frozenset({Source.TOLD, Source.SEEN, Source.ALIKE})
ENDLESS = frozenset({Source.COMMAND, Source.NOTHING})

_PREDICTED = frozenset({Source.FITTED_AND_SEEN, Source.FITTED, Source.PREDICTED})
_INTERVAL_DEVIATIONS = 1.645
"""Standard deviations from a prediction to the upper end of its interval, which 5 % exceed."""
_DEVIATIONS = {Source.SEEN: 0.03, Source.ALIKE: 0.3, Source.NOTHING: 0.7}
"""Of what is no prediction with an interval. What a job does at its own pace is seldom off by more
than a few hundredths; jobs of one model and batch differ by more, and of the rest nobody knows.
Outcomes correct what is wrong about these (``simulator.forecasting.calibrating``).
"""

Fits = Callable[[str, str], bool]
"""Whether steps of a type of model were fitted on a type of accelerator."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Step times of a model that was fitted to what jobs told.

    Attributes:
        times: They.
        is_measured: Whether steps of a type of model were measured on a type of accelerator; else
            they follow from sizes alone.
    """

    times: StepTimes
    is_measured: Fits


@dataclass(frozen=True, slots=True)
class OneJobsTimes:
    """Step times of one job: those that were fitted, else a power of the number of accelerators.

    Attributes:
        fitted: Those that were fitted; None for none.
        seconds_on_one: What a step takes on one accelerator where these know nothing.
    """

    fitted: StepTimes | None
    seconds_on_one: float

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """A way for each plan, on one node."""
        every = (self.way(spec, kind, p, (n,)) for n in sizes(spec) for p in plans_of(spec, n))
        return tuple(every)

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way:
        """Any way is known."""
        found = self.fitted.way(spec, kind, plan, shares) if self.fitted is not None else None
        if found is not None:
            return found
        seconds = self.seconds_on_one * sum(shares) ** -SCALING_EXPONENT
        return Way(plan, shares, seconds, seconds)


@dataclass(slots=True)
class KnownSteps:
    """Answers for the jobs of one cluster, and remembers how each answer was found.

    Attributes:
        state: The cluster.
        at: Its instant.
        fitted: What was fitted; None for nothing.
        told: Seconds of a step on the accelerators that a job asks for, by name.
        sources: How it is known of each job that was asked about.
    """

    state: ClusterState
    at: Instant
    fitted: Fitted | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    _alike: Mapping[tuple[str, int], float] | None = None
    _ratios: Mapping[str, float] | None = None

    def all_there(self) -> dict[JobUid, Arrival]:
        """Of every job of the snapshot that has not ended."""
        return {
            uid: self.of(record.job, record)
            for uid, record in self.state.jobs.items()
            if record.finished_at is None
        }

    def of(self, job: Job, record: JobRecord | None = None) -> Arrival:
        """What is known of a job.

        Args:
            job: The job.
            record: What happened to it; None for one that would be submitted.
        """
        source, times, pace = self._best(job, record)
        self.sources[job.full_name] = source
        at = self.at if record is not None else Instant(0)  # New ones come when time begins.
        return Arrival(at, job, pace, times=times, endless=source in ENDLESS)

    def _best(self, job: Job, record: JobRecord | None) -> tuple[Source, StepTimes, float]:
        spec, own = job.spec, self.told.get(job.full_name, self.told.get(job.name))
        asked_for = float(spec.accelerators.asked_for) ** SCALING_EXPONENT
        if not spec.steps:
            return Source.COMMAND, OneJobsTimes(None, 1.0), 1.0
        if own is not None:
            return Source.TOLD, OneJobsTimes(None, own * asked_for), 1.0
        seen = None if record is None else self._seen_on_one(record)
        kind, way = self._fitted_way(spec)
        if self.fitted is not None and way is not None:
            one = way.seconds * way.accelerators**SCALING_EXPONENT
            times = OneJobsTimes(self.fitted.times, one)
            own_ratio = None if record is None else self._ratio(record)
            ratio = own_ratio or self._ratios_of_types().get(spec.model_type)
            if ratio is not None:
                return Source.FITTED_AND_SEEN, times, ratio
            measured = self.fitted.is_measured(spec.model_type, kind)
            return Source.FITTED if measured else Source.PREDICTED, times, 1.0
        if seen is not None:
            return Source.SEEN, OneJobsTimes(None, seen), 1.0
        alike = self._of_jobs_alike().get(_model_and_batch(spec))
        if alike is not None:
            return Source.ALIKE, OneJobsTimes(None, alike), 1.0
        anything = self.told.get("")
        if anything is not None:
            return Source.TOLD, OneJobsTimes(None, anything * asked_for), 1.0
        return Source.NOTHING, OneJobsTimes(None, 1.0), 1.0

    def deviation(self, job: Job, record: JobRecord | None = None) -> float:
        """By how much the logarithm of what its steps take may be off: a standard deviation.

        Args:
            job: One that was asked about.
            record: What happened to it; None for one that would be submitted.
        """
        source = self.sources[job.full_name]
        if source not in _PREDICTED:
            return _DEVIATIONS.get(source, 0.0)
        if record is not None and self._ratio(record) is not None:
            return _DEVIATIONS[Source.SEEN]
        _, way = self._fitted_way(job.spec)
        if way is None or not way.seconds < way.seconds_upper < inf:
            return _DEVIATIONS[Source.NOTHING]
        return log(way.seconds_upper / way.seconds) / _INTERVAL_DEVIATIONS

    # -- what was fitted ------------------------------------------------------------------

    def _fitted_way(self, spec: JobSpec) -> tuple[str, Way | None]:
        """Some way of the job that the fits know, and the type of accelerators that it is on."""
        if self.fitted is None or not spec.model_type:
            return "", None  # Of a job without a type of model there are only guesses.
        kinds = {a.type for record in self.state.nodes.values() for a in record.node.accelerators}
        for kind in sorted(kinds):
            for size in sizes(spec):
                for plan in plans_of(spec, size):
                    way = self.fitted.times.way(spec, kind, plan, (size,))
                    if way is not None:
                        return kind, way
        return "", None

    def _ratio(self, record: JobRecord) -> float | None:
        """How many times as long as fitted its steps take where it is; None if nobody knows."""
        place = _trains_at(record)
        if place is None or self.fitted is None:
            return None
        node = self.state.nodes.get(place.units[0].node)
        kind = _type_of(place, node.node if node is not None else None)
        way = self.fitted.times.way(record.job.spec, kind, place.plan, shares_of(place))
        return None if way is None else record.progress.step_seconds / way.seconds

    def _ratios_of_types(self) -> Mapping[str, float]:
        """The same of each type of model: the geometric mean of its jobs that train."""
        if self._ratios is None:
            found: dict[str, list[float]] = {}
            for record in self.state.jobs.values():
                ratio = self._ratio(record)
                if ratio is not None:
                    found.setdefault(record.job.spec.model_type, []).append(ratio)
            self._ratios = {name: _geometric_mean(every) for name, every in found.items()}
        return self._ratios

    # -- what jobs told -------------------------------------------------------------------

    def _seen_on_one(self, record: JobRecord) -> float | None:
        """What its steps take on one accelerator, by what they took last; None if none did."""
        took = record.progress.step_seconds
        if not took:
            return None
        place = _trains_at(record)
        if place is not None:
            count = place.accelerator_count
        elif record.switches:
            count = record.switches[-1].accelerators_after
        else:
            count = record.job.spec.accelerators.asked_for
        return float(took * count**SCALING_EXPONENT)

    def _of_jobs_alike(self) -> Mapping[tuple[str, int], float]:
        """What steps of a model and batch take on one accelerator: the geometric mean of what jobs
        that train tell, and of what was observed where none does.
        """
        if self._alike is None:
            found: dict[tuple[str, int], list[float]] = {}
            for each in self.state.observations.values():
                row = each.row
                if row.iteration and row.placement:
                    count = sum(map(int, row.placement.split("+")))
                    key = (row.asked.model, row.asked.global_batch)
                    found.setdefault(key, []).append(row.iteration * count**SCALING_EXPONENT)
            running: dict[tuple[str, int], list[float]] = {}
            for record in self.state.jobs.values():
                seen = self._seen_on_one(record)
                if seen is not None:
                    running.setdefault(_model_and_batch(record.job.spec), []).append(seen)
            every = found | running
            self._alike = {key: _geometric_mean(each) for key, each in every.items() if key[0]}
        return self._alike

    # -- what it is worth -----------------------------------------------------------------

    def sentences(self) -> Iterator[str]:
        """How the step times were found, and which jobs have no end."""
        for source in Source:
            names = [name for name, found in self.sources.items() if found is source]
            if not names or source in ENDLESS:
                continue
            scaled = f", scaled by accelerators to the power of {SCALING_EXPONENT:g}" * (
                source in SCALED
            )
            yield f"step times of {_listed(names)} {source}{scaled}"
        for source in (Source.COMMAND, Source.NOTHING):
            names = [name for name, found in self.sources.items() if found is source]
            if names:
                whose = "commands" if source is Source.COMMAND else f"{source}"
                helps = "; --step-seconds NAME=SECONDS tells it" * (source is Source.NOTHING)
                yield f"no end is known of {_listed(names)} ({whose}){helps}"


def _geometric_mean(values: Sequence[float]) -> float:
    return exp(fmean(map(log, values)))


def _model_and_batch(spec: JobSpec) -> tuple[str, int]:
    return model_of(spec.manifest_json), spec.global_batch_size


def _trains_at(record: JobRecord) -> Placement | None:
    """Where the job trains as it told last; None if it does not, or changes right now."""
    attempt = record.attempt
    if attempt is None or not attempt.trained or attempt.plan_change is not None:
        return None
    return attempt.placement if record.progress.step_seconds else None


def _type_of(place: Placement, node: Node | None) -> str:
    own = place.units[0].accelerators
    return next((a.type for a in (node.accelerators if node else ()) if a.id in own), "")


def _listed(names: list[str]) -> str:
    if len(names) <= _LONGEST_LIST:
        return ", ".join(names)
    return f"{', '.join(names[: _LONGEST_LIST - 1])} and {len(names) - _LONGEST_LIST + 1} more"
