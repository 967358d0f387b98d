"""What a node is told to run: its part of one attempt of one job."""

from dataclasses import dataclass

from controlplane.domain.ids import Attempt, JobUid
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.record import Intent
from headrace.api.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt of one job, with those of its units that belong to one node.

    Attributes:
        uid: The job.
        attempt: Its attempt.
        intent: Run, stop at a checkpoint, or end.
        units: The node's units whose exit is not known yet.
        namespace: Of the job.
        job_name: Of the job.
        generation: Generation of the spec that this attempt runs.
        manifest_json: The manifest; empty for strays, of which only the end is wanted.
        plan: The plan of the whole attempt; None for strays.
        ranks_total: Ranks over all nodes.
        units_total: Units over all nodes.
        rendezvous: Where unit 0 listens; empty until it has bound.
        purge: The job is gone; its checkpoints shall be removed.
        own_pod: Its units run in a pod of their own on the node, and wait for it.
    """

    uid: JobUid
    attempt: Attempt
    intent: Intent
    units: tuple[LaunchUnit, ...]
    namespace: str = ""
    job_name: str = ""
    generation: int = 0
    manifest_json: str = ""
    plan: ExecutionPlan | None = None
    ranks_total: int = 0
    units_total: int = 0
    rendezvous: str = ""
    purge: bool = False
    own_pod: bool = False
