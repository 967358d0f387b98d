"""What to do next about a job that Kueue admits, from what all three sides say now. Pure.

Kueue counts quota and says who may run; the job's ``spec.suspend`` is how that is carried out, as
it is for every kind that Kueue knows. Here too it never matters what happened before.
"""

from enum import Enum

from operators.kueue.workload import Workload
from operators.trainingjob.reconcile import KnownJob, is_over
from operators.trainingjob.status import holds
from operators.trainingjob.training_job import TrainingJob


class Move(Enum):
    """What is to be done before anything else."""

    NOTHING = "nothing"
    SUSPEND = "set spec.suspend"
    RESUME = "take spec.suspend back"
    CREATE = "create the Workload"
    DELETE = "delete the Workload, which asks for what the job asked for before"
    RELEASE = "say that what was evicted runs no more"
    READY = "say that its ranks run"
    NOT_READY = "say that its ranks do not run"
    FINISH = "say that the job has ended"


def next_move(
    found: TrainingJob, known: KnownJob | None, workload: Workload | None, asks: str
) -> Move:
    """What to do first.

    Args:
        found: The object, which names a queue of Kueue.
        known: The control plane's job of its uid; None if it has none.
        workload: The object's; None if there is none.
        asks: What it has to ask for.
    """
    if is_over(found):
        ended = workload is not None and not workload.holds("Finished")
        return Move.FINISH if ended else Move.NOTHING
    if workload is None:
        return Move.CREATE if found.suspended else Move.SUSPEND
    may_run = 0 if workload.asks != asks else workload.may_run
    if not may_run:
        if not found.suspended:
            return Move.SUSPEND
        if not is_quiet(found, known):
            return Move.NOTHING
        if workload.asks != asks:
            return Move.DELETE
        evicted = workload.holds("Evicted") and workload.has_quota
        return Move.RELEASE if evicted else Move.NOTHING
    if found.suspended:
        return Move.RESUME
    current = known is not None and known.generation == found.generation
    if current and known is not None and known.kueue_most > may_run:
        # It was admitted anew, with fewer ranks, while nobody looked.
        return Move.SUSPEND
    return _readiness(known, workload) if current and known is not None else Move.NOTHING


def _readiness(known: KnownJob, workload: Workload) -> Move:
    """A Kueue that waits for pods evicts what does not say in time that it runs."""
    # Ranks that change their plan are there all the time.
    ready = holds(known.status, "Running") or holds(known.status, "Reconfiguring")
    if ready == workload.holds("PodsReady"):
        return Move.NOTHING
    return Move.READY if ready else Move.NOT_READY


def is_quiet(found: TrainingJob, known: KnownJob | None) -> bool:
    """Whether a suspended job runs nothing any more."""
    if known is None:
        return True
    if known.generation < found.generation or not known.status_json:
        return False
    status = known.status
    return not status.get("accelerators") and not holds(status, "Admitted")
