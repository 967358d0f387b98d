"""What to do about one object next, from what both sides say now. Pure.

It never matters what happened, only how things are: the same answer comes again until it is done,
so whoever is killed at any moment, or does a thing twice, changes nothing in the end.
"""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from operators.trainingjob.training_job import TrainingJob


class Step(Enum):
    """What is to be done before anything else."""

    NOTHING = "nothing"
    PUT_FINALIZER = "put the finalizer"
    SUBMIT = "submit this generation"
    WITHDRAW = "withdraw the job"
    MAKE_SURE_IT_IS_FORGOTTEN = "ask whether the job is forgotten, then let the object go"
    LET_GO = "let the object go without the control plane's word"
    WITHDRAW_IF_OBJECT_IS_GONE = "ask whether the object is gone, then withdraw the job"


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job as the control plane has it.

    Attributes:
        uid: Its uid.
        namespace: Its namespace.
        name: Its name.
        generation: The newest that was accepted.
        of_kubernetes: Whether an operator brought it.
        withdrawn: Whether its removal was asked for.
        finished_at: When it ended, in seconds since 1970 UTC; 0 while it has not.
        priority: Of its spec.
        status_json: What its object's status should be, in one spelling; empty before it was told.
        kueue_most: Of a job that Kueue admits the most accelerators that it may be given; else 0.
    """

    uid: str
    namespace: str
    name: str
    generation: int
    of_kubernetes: bool
    withdrawn: bool = False
    finished_at: float = 0.0
    priority: int = 0
    status_json: str = ""
    kueue_most: int = 0

    @property
    def status(self) -> dict[str, Any]:
        """That status, read anew each time; empty before it was told."""
        status: dict[str, Any] = json.loads(self.status_json) if self.status_json else {}
        return status


def next_step(
    found: TrainingJob | None,
    job: KnownJob | None,
    *,
    knows_all_jobs: bool,
    refused_generation: int = 0,
) -> Step:
    """What to do first.

    Args:
        found: The object; None if there is none of that uid.
        job: The control plane's job of that uid; None if it is not known.
        knows_all_jobs: Whether the control plane has told of all jobs, so that "not known" counts.
        refused_generation: The generation of the object that was refused; 0 if none was.
    """
    if found is None:
        orphan = job is not None and job.of_kubernetes and not job.withdrawn
        return Step.WITHDRAW_IF_OBJECT_IS_GONE if orphan else Step.NOTHING
    if found.is_going:
        return _next_step_of_going(found, job, knows_all_jobs=knows_all_jobs)
    if not found.is_ours or not knows_all_jobs:
        return Step.NOTHING
    if job is None and is_over(found):
        # Its job was forgotten with a store that was lost; it must not train again.
        return Step.NOTHING
    if not found.has_finalizer:
        return Step.PUT_FINALIZER
    behind = job is None or job.generation < found.generation
    return Step.SUBMIT if behind and refused_generation != found.generation else Step.NOTHING


def _next_step_of_going(found: TrainingJob, job: KnownJob | None, *, knows_all_jobs: bool) -> Step:
    if not found.has_finalizer:
        return Step.NOTHING
    if found.is_abandoned:
        return Step.LET_GO
    if not knows_all_jobs:
        return Step.NOTHING
    if job is None:
        return Step.MAKE_SURE_IT_IS_FORGOTTEN
    return Step.NOTHING if job.withdrawn else Step.WITHDRAW


def is_over(found: TrainingJob) -> bool:
    """Whether its status says that it has ended."""
    return any(
        condition.get("type") in ("Succeeded", "Failed") and condition.get("status") == "True"
        for condition in found.status.get("conditions", ())
    )
