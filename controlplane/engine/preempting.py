"""For whom a job that is preempted makes room. Pure."""

from collections.abc import Sequence

from controlplane.domain.changing import changed
from controlplane.domain.job import Job
from controlplane.domain.preemption import Preemption
from controlplane.domain.reason import Reason


def preempted(reason: Reason, why: Reason | None, job: Job, others: Sequence[Job]) -> Reason:
    """The reason with the facts about the job that gets what this one held, in its sentence too.

    Args:
        reason: Why it is stopped.
        why: What the policy says, which may know for whom.
        job: The job that is stopped.
        others: Jobs that get some of what it held; the first one is named.
    """
    facts = why.preemption if why is not None else None
    if facts is None and others:
        by = others[0]
        facts = Preemption(
            by.uid, by.spec.queue, by.spec.priority, job.spec.queue, job.spec.priority
        )
    if facts is None:
        return reason
    return changed(reason, message=f"{reason.message} {facts}", preemption=facts)
