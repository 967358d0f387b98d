"""When a job starts and ends, for people: an interval with its coverage, by the clock. Pure.

Times are those of the machine that the command runs on. ``~`` marks what promises nothing: the pace
of the last steps, an interval that is not calibrated yet, or one that is old.
"""

from datetime import UTC, datetime

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.cli.tables import age

OLD_SECONDS = 600.0
"""A forecast of a state so long ago promises nothing any more."""

_DAY_SECONDS = 86_400.0


def eta(job: jobs_pb2.Job, now: float) -> str:
    """When the job ends: an interval where there is an estimate with a coverage.

    Without one, what is left at the pace of the last steps; ``-`` where not even a pace is known.

    Args:
        job: The job.
        now: Seconds since 1970.
    """
    status = job.status
    if status.finished_at.seconds:
        return "-"
    if not status.HasField("end"):
        return _at_this_pace(job)
    return _short(status.end, now)


def starts(job: jobs_pb2.Job, now: float) -> str:
    """When the job starts, in the same form; ``-`` if it has or nobody can say."""
    return _short(job.status.start, now) if job.status.HasField("start") else "-"


def coverage(job: jobs_pb2.Job) -> str:
    """How often the interval of the end holds; ``-`` where that is not known yet."""
    end = job.status.end
    known = job.status.HasField("end") and not end.outcomes_missing
    return f"{100 * end.coverage:.3g}%" if known else "-"


def _short(estimate: common_pb2.Estimate, now: float) -> str:
    mark = "~" if estimate.outcomes_missing or _age(estimate, now) > OLD_SECONDS else ""
    if estimate.high < now:
        return f"{mark}late {age(now - estimate.high)}"
    low, high = _both(estimate, now)
    return f"{mark}{low}" if low == high else f"{mark}{low}-{high}"


def told(estimate: common_pb2.Estimate, now: float, what: str) -> str:
    """A sentence: "done 14:05 to 14:20 (90 %), predicted 12s ago".

    Args:
        estimate: Of an instant.
        now: Seconds since 1970.
        what: What happens then, as "done".
    """
    low, high = _both(estimate, now)
    when = f"{what} {low}" if low == high else f"{what} {low} to {high}"
    share = f"{100 * estimate.coverage:.3g} %"
    missing = estimate.outcomes_missing
    if missing:
        share = f"not calibrated for {share} yet: {missing} outcome{'s' * (missing > 1)} missing"
    late = f"; it is {age(now - estimate.high)} past that" if estimate.high < now else ""
    return f"{when} ({share}), predicted {age(_age(estimate, now))} ago{late}"


def ends(job: jobs_pb2.Job, now: float) -> str:
    """The same of a job's end; what is left at this pace where nobody estimates."""
    if job.status.HasField("end") and not job.status.finished_at.seconds:
        return told(job.status.end, now, "done")
    return eta(job, now)


def _age(estimate: common_pb2.Estimate, now: float) -> float:
    return max(0.0, now - estimate.made_at.seconds)


def _both(estimate: common_pb2.Estimate, now: float) -> tuple[str, str]:
    """Both ends, the earlier one not in the past."""
    low = max(estimate.low, min(now, estimate.high))
    return clock(low, now), clock(estimate.high, now)


def clock(at: float, now: float) -> str:
    """An instant by the clock: with the weekday if it is another day, the date if that is far.

    Args:
        at: Seconds since 1970.
        now: The same of the present.
    """
    then, today = (datetime.fromtimestamp(each, UTC).astimezone() for each in (at, now))
    if then.date() == today.date():
        return then.strftime("%H:%M")
    if abs(at - now) < 6 * _DAY_SECONDS:
        return then.strftime("%a %H:%M")
    return then.strftime("%m-%d" if abs(at - now) < 300 * _DAY_SECONDS else "%Y-%m-%d")


def _at_this_pace(job: jobs_pb2.Job) -> str:
    progress = job.status.progress
    left = progress.steps_total - progress.step
    if job.status.stage != "Running" or progress.step_seconds <= 0 or left <= 0:
        return "-"
    return f"~{age(left * progress.step_seconds)}"
