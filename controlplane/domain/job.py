"""A training job as the control plane sees it: identity, what it asks for, what it allows."""

from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.clock import Instant
from controlplane.domain.ids import JobUid, QueueName
from controlplane.domain.memory import Memory
from controlplane.domain.node import Taint
from headrace.api.plan import ExecutionPlan


class ServiceClass(StrEnum):
    """How firmly the job's minimum is promised."""

    GUARANTEED = "Guaranteed"
    BEST_EFFORT = "BestEffort"


class Topology(StrEnum):
    """How far apart the job's ranks may be."""

    ANY = "Any"
    SAME_RACK = "SameRack"
    """On nodes that tell the same rack, or on one node, whatever that tells."""
    SAME_NODE = "SameNode"

    @property
    def words(self) -> str:
        """As it is said behind a number of accelerators; empty where nothing is asked for."""
        if self is Topology.ANY:
            return ""
        return " in one rack" if self is Topology.SAME_RACK else " on one node"


class Owner(StrEnum):
    """Who mints uid and generation. Objects of Kubernetes are read-only over gRPC."""

    CONTROL_PLANE = "ControlPlane"
    KUBERNETES = "Kubernetes"


@dataclass(frozen=True, slots=True)
class Toleration:
    """Accepts a taint; an empty value accepts any value of the key."""

    key: str
    value: str = ""

    def accepts(self, taint: Taint) -> bool:
        """Whether this toleration covers ``taint``."""
        return self.key == taint.key and self.value in ("", taint.value)


@dataclass(frozen=True, slots=True)
class AcceleratorRequest:
    """The accelerators that a job can use.

    Attributes:
        minimum: Fewest accelerators that the job starts with.
        maximum: Most that it can use; equal to ``minimum`` for a rigid job.
        requested: What the user asks for, between the two: a policy that changes nothing gives it,
            one that does must promise its speed. 0 for the minimum.
        type: Accelerator model; empty accepts any, but never a mixture.
        selector: Node labels that must match, sorted.
        tolerations: Taints that do not keep it off.
        topology: How far apart its ranks may be.
        cpu_cores_each: CPU cores that each accelerator must bring.
        host_memory_bytes_each: Host memory that each accelerator must bring.
        memory: What each must have room for, as far as it is known: what the plan needs for which a
            policy asks. None in a job's own request, which is not for one plan alone.
    """

    minimum: int
    maximum: int
    type: str = ""
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    topology: Topology = Topology.ANY
    cpu_cores_each: int = 0
    host_memory_bytes_each: int = 0
    memory: Memory | None = None
    requested: int = 0

    @property
    def asked_for(self) -> int:
        """Accelerators that the user asks for."""
        return self.requested or self.minimum


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job asks for, reduced to what deciding needs.

    Attributes:
        queue: Queue whose quota it counts against.
        priority: Higher goes first.
        service_class: Guaranteed or best effort.
        accelerators: What it can run on.
        elastic: Whether its number of ranks may change; a command of the user's own may not.
        unit_per_node: Whether one launch unit takes all of a node's accelerators (a user's own
            command, e.g. ``torchrun``) instead of one accelerator each.
        global_batch_size: Samples an optimizer step, over all ranks; 0 for a user's command.
        micro_batch_size_max: Most samples that one rank holds at once; 0 for no limit.
        plans: The plans that it may run under, the best of each size first; none for data
            parallel on any number of ranks that divides the batch.
        model: The built-in model as `memory.model_text` writes it, from which the memory of plans
            is estimated; empty where nobody can, or the user will not have it.
        model_type: Under which name what is measured of its steps is known: jobs of one model,
            precision and batch share it. Empty where nothing can be shared.
        any_plan: Whether a policy that chooses plans may take any that can train the model: the
            job names none and trains a built-in model. Other policies run it data parallel.
        requested_plan: The plan that the user asks for on ``accelerators.asked_for``; None for the
            first of ``plans`` of that size, or data parallel.
        unfit: Why no plan is left of those that it may run under, in what a policy is offered;
            empty if one is.
        steps: Optimizer steps until it is done; 0 where unknown (a user's command).
        suspend: Whether it must not run now.
        max_retries: Failed attempts after the first that are forgiven.
        backoff_seconds: Wait before the first retry; doubles each time up to ``backoff_max``.
        backoff_max_seconds: Longest wait that the job's own failures cause.
        deadline_seconds: From submission to the end; 0 for none.
        max_run_seconds: Time holding accelerators, over all attempts; 0 for none.
        ttl_seconds_after_finish: When a finished job is forgotten; -1 for never.
        manifest_json: The whole manifest in canonical JSON, for the agents.
        own_pod: Whether its owner makes a pod for it on each of its nodes, in which its units run.
    """

    queue: QueueName
    accelerators: AcceleratorRequest
    priority: int = 0
    service_class: ServiceClass = ServiceClass.BEST_EFFORT
    elastic: bool = True
    unit_per_node: bool = False
    global_batch_size: int = 0
    micro_batch_size_max: int = 0
    plans: tuple[ExecutionPlan, ...] = ()
    model: str = ""
    model_type: str = ""
    any_plan: bool = False
    requested_plan: ExecutionPlan | None = None
    unfit: str = ""
    steps: int = 0
    suspend: bool = False
    max_retries: int = 3
    backoff_seconds: int = 5
    backoff_max_seconds: int = 300
    deadline_seconds: int = 0
    max_run_seconds: int = 0
    ttl_seconds_after_finish: int = -1
    manifest_json: str = "{}"
    own_pod: bool = False

    @property
    def changes_plan_in_memory(self) -> bool:
        """Whether its ranks can go over to another plan without a restart: they are our trainer's,
        and not a program of the user's own.
        """
        return not self.unit_per_node and self.steps > 0 and self.global_batch_size > 0


@dataclass(frozen=True, slots=True)
class Job:
    """One job under one uid and generation.

    Attributes:
        uid: Minted by the owner of the object.
        namespace: Where the name is unique.
        name: What people call it.
        generation: Counts changes of the spec from 1, minted by the owner.
        spec: What it asks for.
        owner: Who minted uid and generation.
        submitter: Identity that submitted it.
        submitted_at: When the control plane first accepted this uid.
    """

    uid: JobUid
    namespace: str
    name: str
    generation: int
    spec: JobSpec
    owner: Owner = Owner.CONTROL_PLANE
    submitter: str = ""
    submitted_at: Instant = Instant(0)

    @property
    def full_name(self) -> str:
        """What people call it among all namespaces."""
        return f"{self.namespace}/{self.name}"
