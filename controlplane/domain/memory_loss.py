"""Plans under which memory ran out, kept for the next job that trains the same."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.observation import Observation
from controlplane.domain.record import JobRecord
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status

LOSSES_KEPT = 2_000
"""Those that were first seen longest ago make room for new ones."""


@dataclass(frozen=True, slots=True)
class MemoryLoss:
    """A plan that ran out of memory.

    Attributes:
        model_type: What was trained, as `model_type.type_text` writes it.
        type: Of the accelerators.
        plan: The plan.
        uid: The first job to which it happened.
        job: Its full name, also when it is forgotten.
        at: When it did.
    """

    model_type: str
    type: str
    plan: ExecutionPlan
    uid: JobUid
    job: str
    at: Instant

    def observation(self) -> Observation:
        """In the form of a profile's row, without figures."""
        model, precision, _, size = self.model_type.split(" ")
        samples, positions = map(int, size.split("x"))
        ranks = self.plan.ranks
        asked = Asked(model, ranks, samples, positions, precision)
        machine = Machine(self.type, 0, "", "", "", "", "")
        status = Status.OUT_OF_MEMORY
        row = PlanRow(asked, str(self.plan), status, str(ranks), self.sentence, machine=machine)
        return Observation(self.uid, Attempt(0), 0, self.at, row)

    @property
    def sentence(self) -> str:
        """What happened, for people."""
        return f"ran out of memory in job {self.job} on {self.type}"


def keep_losses(
    kept: dict[str, MemoryLoss], before: JobRecord, after: JobRecord, at: Instant
) -> None:
    """Puts what a job has just run out of among those that are ``kept``, where others train the
    same: the first job to which it happened stays.
    """
    model_type = after.job.spec.model_type
    if not model_type or after.out_of_memory == before.out_of_memory:
        return
    for kind, plan in after.out_of_memory:
        key = f"{model_type} {plan} on {kind}"
        if kind and key not in kept:
            kept[key] = MemoryLoss(model_type, kind, plan, after.uid, after.job.full_name, at)
    while len(kept) > LOSSES_KEPT:
        del kept[next(iter(kept))]


def losses_of_others(
    record: JobRecord, kept: Mapping[str, MemoryLoss], types: Collection[str]
) -> list[MemoryLoss]:
    """What other jobs ran out of, and this one is not offered for it.

    A job that ignores the estimate of memory tries for itself. The plan that it runs under proves
    that it fits. Where any type will do, a plan is out that ran out of memory on all there are.

    Args:
        record: The job.
        kept: What is known.
        types: Of the accelerators that the cluster offers.
    """
    spec = record.job.spec
    if not kept or not spec.model or not spec.model_type:
        return []
    wanted = {spec.accelerators.type} if spec.accelerators.type else set(types)
    runs = None if record.attempt is None else record.attempt.plan_in_force
    found: dict[ExecutionPlan, list[MemoryLoss]] = {}
    for loss in kept.values():
        theirs = loss.model_type == spec.model_type and loss.uid != record.uid
        if theirs and loss.type in wanted and loss.plan != runs:
            found.setdefault(loss.plan, []).append(loss)
    return [loss for each in found.values() if len(each) == len(wanted) for loss in each]
