"""From a question to its answer: one cluster, played without the changes and with them."""

from collections.abc import Callable
from datetime import UTC, datetime

from controlplane.domain.clock import SECOND, Instant, after, seconds
from controlplane.domain.step_time_fit import fit_key
from controlplane.engine.state import ClusterState
from controlplane.live import live_policies
from controlplane.rubick.fitted import FittedTimes
from simulator.snapshots import latest
from simulator.what_if.difference import answer
from simulator.what_if.forecast import Cluster, Forecast, forecast
from simulator.what_if.known_steps import Fitted, KnownSteps
from simulator.what_if.question import Changes, Question, changes_of
from simulator.what_if.switch_costs import costs_of


def answered(
    question: Question, state: ClusterState, progress: Callable[[float], None] | None = None
) -> dict[str, object]:
    """The answer as a document; see `docs/operations/what-if.md`.

    Args:
        question: What is asked.
        state: The snapshot that it is asked about; it stays as it is.
        progress: Told, now and then, which share is done.

    Raises:
        ValueError: The question cannot be asked of this cluster, with every reason.
    """
    policies = live_policies()
    at = _asked_at(question, state)
    changes = changes_of(question, state, policies)
    unchanged = Changes((), (), (), (), state.settings.policy, ())
    if unchanged.policy not in policies:
        raise ValueError(
            f"the snapshot's policy is {unchanged.policy}, which is none of these here"
        )
    costs, about_costs = costs_of(state, question.switch_seconds)
    steps = KnownSteps(state, at, _fitted(state, at), told=_told_by_name(question, state, changes))
    known = steps.all_there() | {job.uid: steps.of(job) for job in changes.jobs}
    cluster = Cluster(state, at, costs, policies, known)
    plays = [unchanged, changes] if changes.told else [unchanged]
    made: list[Forecast] = []
    for number, each in enumerate(plays):
        jobs = max(1, len(known))

        def ended(count: int, _at: Instant, number: int = number, jobs: int = jobs) -> None:
            if progress is not None:
                progress((number + min(1.0, count / jobs)) / len(plays))

        made.append(forecast(cluster, each, ended))
    return answer(
        made[0],
        made[1] if len(made) > 1 else None,
        at=datetime.fromtimestamp(at // SECOND, UTC).isoformat(),
        changes=changes.told,
        assumed=[*steps.sentences(), *about_costs, "nothing fails, and no other job is submitted"],
    )


def _asked_at(question: Question, state: ClusterState) -> Instant:
    """Now, of a live cluster in which nothing may have happened for hours; never before what the
    snapshot speaks of, whatever the clocks of two machines say.
    """
    last = latest(state)
    if question.now_seconds is None:
        return last
    return max(last, after(Instant(0), seconds(question.now_seconds)))


def _fitted(state: ClusterState, at: Instant) -> Fitted:
    """What the live cluster itself chooses by, if its policy does."""
    return Fitted(
        FittedTimes()(state.snapshot(at)),
        lambda model_type, kind: fit_key(model_type, kind) in state.fits,
    )


def _told_by_name(question: Question, state: ClusterState, changes: Changes) -> dict[str, float]:
    """What `--step-seconds` says, checked.

    Raises:
        ValueError: It names a job that is not there.
    """
    names = {
        name
        for job in (*(record.job for record in state.jobs.values()), *changes.jobs)
        for name in (job.name, job.full_name)
    }
    for name in question.step_seconds:
        if name and name not in names:
            raise ValueError(
                f"--step-seconds: there is no job {name!r} in the snapshot, and none is submitted"
            )
    return dict(question.step_seconds)
